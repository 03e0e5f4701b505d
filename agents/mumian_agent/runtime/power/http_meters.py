"""Meters that are asked over HTTP: a JSON document, Prometheus, a server's Redfish."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from mumian_agent.runtime.power.meter import MeterError

_TIMEOUT_S = 5.0
_ANSWER_BYTES_MAX = 1 << 20


class HttpJsonMeter:
    """A number in a JSON document, at a path such as `meters.0.power`."""

    name = "http"

    def __init__(self, url: str, path: str, mw_per_unit: int) -> None:
        self._url, self._path, self._mw_per_unit = url, path, mw_per_unit

    def power_mw(self) -> int:
        """The newest reading."""
        return _scaled(_at(_get_json(self._url), self._path), self._mw_per_unit)


class PrometheusMeter:
    """An instant query that gives one number.

    https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries
    """

    name = "prometheus"

    def __init__(self, url: str, query: str, mw_per_unit: int) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        self._mw_per_unit = mw_per_unit

    def power_mw(self) -> int:
        """The newest sample."""
        answer = _get_json(self._url)
        result = _at(answer, "data.result")
        if _at(answer, "data.resultType") == "scalar":
            return _scaled(result[1], self._mw_per_unit)
        if not isinstance(result, list) or len(result) != 1:
            count = len(result) if isinstance(result, list) else 0
            raise MeterError(f"its query gives {count} series; make it give one, as by sum(...)")
        return _scaled(_at(result[0], "value.1"), self._mw_per_unit)


class RedfishMeter:
    """The input power of one chassis, by its board controller.

    DMTF DSP2046: `PowerWatts.Reading` of EnvironmentMetrics; older controllers have
    `PowerControl[].PowerConsumedWatts` of Power.
    """

    name = "redfish"

    def __init__(
        self, url: str, chassis: str, username: str = "", password: str = "", ca_file: str | None = None
    ) -> None:
        self._chassis = f"{url.rstrip('/')}/redfish/v1/Chassis/{urllib.parse.quote(chassis)}"
        token = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}"} if username else {}
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._is_old = False

    def power_mw(self) -> int:
        """What the controller says now."""
        if not self._is_old:
            try:
                metrics = self._get("EnvironmentMetrics")
                return _scaled(_at(metrics, "PowerWatts.Reading"), 1000)
            except MeterError:
                power = self._get("Power")  # fails as well when the controller is away
                self._is_old = True
        else:
            power = self._get("Power")
        controls = _at(power, "PowerControl")
        if not isinstance(controls, list) or not controls:
            raise MeterError("has no PowerControl")
        return sum(_scaled(_at(each, "PowerConsumedWatts"), 1000) for each in controls)

    def _get(self, resource: str) -> Any:
        return _get_json(f"{self._chassis}/{resource}", self._headers, self._tls)


def _get_json(url: str, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None) -> Any:
    request = urllib.request.Request(url, headers={"Accept": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=tls) as answer:
            return json.loads(answer.read(_ANSWER_BYTES_MAX), parse_float=Decimal)
    except urllib.error.HTTPError as error:
        raise MeterError(f"answers {error.code} at {url}") from None
    except (OSError, ValueError) as error:
        raise MeterError(f"cannot be asked at {url}: {getattr(error, 'reason', error)}") from None


def _at(document: Any, path: str) -> Any:
    found = document
    for part in path.split("."):
        try:
            found = found[int(part)] if isinstance(found, list) else found[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise MeterError(f"has no {path!r} in its answer") from None
    return found


def _scaled(value: Any, mw_per_unit: int) -> int:
    try:
        if isinstance(value, bool):
            raise InvalidOperation
        number = Decimal(str(value))
        if not number.is_finite():
            raise InvalidOperation
    except InvalidOperation:
        raise MeterError(f"reads {value!r}, which is no number") from None
    return round(number * mw_per_unit)
