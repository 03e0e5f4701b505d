"""Metrics for Prometheus, over HTTP. What they are is the caller's: it gives a function for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class MetricsPortTakenError(Exception):
    """The address for metrics cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure that goes up and down. `read` may be called in any thread."""

    name: str
    about: str
    read: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Counter:
    """A figure that only grows, by the values of one label; with an empty label, one figure under ""."""

    name: str
    about: str
    label: str
    read: Callable[[], Mapping[str, float]]


class Exporter(Collector):
    """Answers scrapes with the figures as they are then."""

    def __init__(self) -> None:
        self.figures: Sequence[Gauge | Counter] = ()

    def listen(self, host: str, port: int) -> Callable[[], None]:
        """Serve in a thread of its own; call the answer to stop.

        Raises:
            MetricsPortTakenError: somebody else listens there, or the address is not this machine's.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise MetricsPortTakenError(
                f"metrics ({host}:{port}) cannot be listened on: {error.strerror}"
            ) from None

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop

    def collect(self) -> Iterator[Metric]:
        """All figures, read now."""
        for figure in self.figures:
            if isinstance(figure, Gauge):
                yield GaugeMetricFamily(figure.name, figure.about, value=figure.read())
                continue
            family = CounterMetricFamily(
                figure.name, figure.about, labels=[figure.label] if figure.label else []
            )
            for value, count in dict(figure.read()).items():
                family.add_metric([value] if figure.label else [], count)
            yield family
