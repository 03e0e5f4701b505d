"""Users of a zone: send requests to a service along a delayed path and time the answers."""

from __future__ import annotations

import http.client
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from examples.demo.delay_proxy import Address, ask_for_priority
from examples.demo.jobs.http_service import COMPUTE_HEADER
from examples.demo.workloads import Request

_WARM_UP, _TIMEOUT_S = 20, 10.0
_PAUSE_S = 0.005


class ServiceError(Exception):
    """A service that does not answer as it should."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The answers' times as the user sees them, and the part of them that the service computed."""

    round_trips_ms: Sequence[float]
    compute_ms: Sequence[float]
    last_body: bytes
    last_headers: dict[str, str]

    def p(self, percent: int) -> float:
        """A percentile of the answers' times."""
        return quantile(self.round_trips_ms, percent)

    @property
    def compute_p50_ms(self) -> float:
        """The median of the computing."""
        return statistics.median(self.compute_ms)

    def share_within(self, limit_ms: float) -> float:
        """The share of the answers that came in time."""
        return sum(time_ms <= limit_ms for time_ms in self.round_trips_ms) / len(self.round_trips_ms)


def quantile(values: Sequence[float], percent: int) -> float:
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[max(-(-percent * len(ordered) // 100), 1) - 1]


def measure(near_end: Address, request_of: Callable[[int], Request], count: int) -> Measurement:
    """Send so many requests, one after the other, over one connection.

    Raises:
        ServiceError: one was not answered, or refused.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    ask_for_priority()  # the users have machines of their own
    connection = http.client.HTTPConnection(*near_end, timeout=_TIMEOUT_S)
    round_trips_ms, compute_ms = [], []
    try:
        for number in range(-_WARM_UP, count):
            request = request_of(number + _WARM_UP)
            begun_s = time.perf_counter()
            connection.request("POST" if request.body else "GET", request.path, request.body or None)
            response = connection.getresponse()
            body = response.read()
            took_ms = (time.perf_counter() - begun_s) * 1000
            if response.status != http.HTTPStatus.OK:
                raise ServiceError(f"{request.path} was answered with {response.status}: {body!r:.200}")
            if number >= 0:
                round_trips_ms.append(took_ms)
                compute_ms.append(int(response.headers[COMPUTE_HEADER]) / 1000)
            time.sleep(_PAUSE_S)
        return Measurement(round_trips_ms, compute_ms, body, dict(response.headers))
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError(f"no answer along the path at {near_end}: {error!r}") from None
    finally:
        connection.close()
        ask_for_priority(usual)
