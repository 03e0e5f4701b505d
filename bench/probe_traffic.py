"""What a site's probing costs: `python -m bench.probe_traffic`.

A site's own prober, with the settings that an agent has by default, probes so and so many targets that answer
on this machine. Counted is what arrives at the targets, and the processor time of the prober's thread alone;
the first burst is over before the count begins.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import threading
import time
from typing import Any

import click
from mumian_agent.domain.config import AgentConfig
from mumian_agent.domain.probe_packet import PACKET_BYTES, answer_to
from mumian_agent.runtime.probing.prober import Prober

_SETTLED_AFTER_S = 3.0
_UDP_AND_IP_BYTES = 28
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(AgentConfig)}
_TARGETS = (10, 100, 500)


class CountingReflector:
    """Answers every probe, however many."""

    def __init__(self) -> None:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.packets = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            datagram, sender = self._socket.recvfrom(PACKET_BYTES + 1)
            self.packets += 1
            if (answer := answer_to(datagram)) is not None:
                self._socket.sendto(answer, sender)


@click.command()
@click.option("--targets", type=click.IntRange(1, 1000), multiple=True, default=_TARGETS, show_default=True)
@click.option("--seconds", type=click.FloatRange(1, 600), default=15.0, show_default=True)
def probe_traffic(targets: tuple[int, ...], seconds: float) -> None:
    """Packets and bytes a second, one way, and thousandths of a core; one line `name value unit` each."""
    for count in targets:
        asyncio.run(_measure(count, seconds))


async def _measure(count: int, seconds: float) -> None:
    reflector = CountingReflector()
    prober = Prober(
        "bench",
        {},
        _DEFAULTS["probe_interval_ms"],
        _DEFAULTS["probe_window"],
        packets_per_second_max=_DEFAULTS["probe_packets_per_second_max"],
    )
    prober.set_targets({f"target-{number}": reflector.address for number in range(count)})
    burst_s = 25 * count / _DEFAULTS["probe_packets_per_second_max"]
    await asyncio.sleep(_SETTLED_AFTER_S + burst_s)
    packets, cpu_s, begun_s = reflector.packets, time.thread_time(), time.monotonic()
    reports = 0
    while time.monotonic() - begun_s < seconds:
        await asyncio.sleep(1)
        reports += len(prober.news())
    took_s = time.monotonic() - begun_s
    per_second = (reflector.packets - packets) / took_s
    prober.close()
    click.echo(f"probe_{count}_targets {per_second:.0f} packets/s")
    kbps = per_second * (PACKET_BYTES + _UDP_AND_IP_BYTES) * 8 / 1000
    click.echo(f"probe_{count}_targets_traffic {kbps:.1f} kbit/s")
    click.echo(f"probe_{count}_targets_cpu {1000 * (time.thread_time() - cpu_s) / took_s:.1f} milli-CPU")
    click.echo(f"probe_{count}_targets_reports {reports / took_s:.1f} links/s")


if __name__ == "__main__":
    probe_traffic()
