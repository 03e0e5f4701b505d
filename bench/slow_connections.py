"""Ten thousand connections that say little, and that slowly: `python -m bench.slow_connections`.

A real coordinator on a real etcd. A process opens many TCP connections and behaves on each in one of four
ways: it says nothing; it sends the first bytes of HTTP/2 one a second; it completes the handshake and then
says nothing, not even to pings; it completes it and sends the head of a request one byte a second. Meanwhile
a tenant submits one job after the other, and an agent shows every tenth of a second that it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import psutil
from mumian_orchestrator.main.free_ports import free_port

from bench.overload import Beats, flood, give_way, loop_stall_s, percentile_ms
from bench.report import Report
from bench.store import private_etcd
from tests.orchestrator.conftest import Coordinator

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = bytes(3) + b"\x04\x00" + bytes(4)  # of HTTP/2, with nothing in it
# A frame of 60 bytes that begins a request, all of them still to come.
_HEADERS = b"\x00\x00\x3c\x01\x04\x00\x00\x00\x01"
_BYTE_EVERY_S = 1.0
_WAYS = ("silent", "slow_preface", "silent_after_handshake", "slow_request")
# So many are opened at a time; more wait for the kernel, and would measure that.
_OPENED_AT_ONCE = 200


async def _drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    for number in range(len(data)):
        writer.write(data[number : number + 1])
        await writer.drain()
        await asyncio.sleep(_BYTE_EVERY_S)


async def _connect(
    host: str, port: int, way: str, opening: asyncio.Semaphore, opened: dict[str, int], lasted_s: list[float]
) -> None:
    """One of them, until the coordinator ends it."""
    async with opening:
        reader, writer = await asyncio.open_connection(host, port, limit=1024)
    opened[way] += 1
    begun_s = time.monotonic()
    with contextlib.suppress(OSError):
        if way == "slow_preface":
            await _drip(writer, _PREFACE + _SETTINGS)
        elif way == "silent_after_handshake":
            writer.write(_PREFACE + _SETTINGS)
        elif way == "slow_request":
            writer.write(_PREFACE + _SETTINGS)
            await _drip(writer, _HEADERS + bytes(60))
        while await reader.read(1024):
            pass
    lasted_s.append(time.monotonic() - begun_s)
    writer.close()


async def _open(host: str, port: int, count: int, seconds: float) -> tuple[dict[str, int], list[float]]:
    opened, lasted_s = dict.fromkeys(_WAYS, 0), list[float]()
    opening = asyncio.Semaphore(_OPENED_AT_ONCE)
    made = [
        asyncio.create_task(_connect(host, port, _WAYS[n % len(_WAYS)], opening, opened, lasted_s))
        for n in range(count)
    ]
    await asyncio.wait(made, timeout=seconds)
    failed = [task.exception() for task in made if task.done() and task.exception()]
    assert not failed, f"{len(failed)} connections failed, such as: {failed[0]!r}"
    for task in made:
        task.cancel()
    return opened, lasted_s


def _process(host: str, port: int, count: int, seconds: float, pipe: Any) -> None:
    give_way()
    _raise_file_limit(count + 1000)
    pipe.send(asyncio.run(_open(host, port, count, seconds)))


def _raise_file_limit(wanted: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, most), most))


async def _measure(
    report: Report, coordinator: Coordinator, metrics: str, count: int, seconds: float
) -> None:
    host, _, port = coordinator.address.rpartition(":")
    process = psutil.Process(coordinator.running.process.pid)
    async with coordinator.channel() as channel:
        beats = Beats()
        beating = asyncio.create_task(beats.run(channel))

        async def phase(name: str) -> None:
            beats.took_s.clear()
            quiet = await flood(coordinator.address, "quiet", 1, seconds)
            assert not quiet.failed, quiet.failed
            report.line(f"slow_connections_{name}_submit_p99", percentile_ms(quiet.took_s, 99), "ms")
            report.line(f"slow_connections_{name}_heartbeat_p99", percentile_ms(beats.took_s, 99), "ms")
            report.line(f"slow_connections_{name}_memory", process.memory_info().rss / 2**20, "MiB")

        await phase("before")
        mine, theirs = multiprocessing.get_context("spawn").Pipe()
        opener = multiprocessing.get_context("spawn").Process(
            target=_process, args=(host, int(port), count, 2 * seconds, theirs), daemon=True
        )
        opener.start()
        most_files, opened_s = 0, time.monotonic()
        during = asyncio.create_task(phase("during"))
        while not during.done():
            most_files = max(most_files, process.num_fds())
            await asyncio.sleep(0.2)
        await during
        opened, lasted_s = await asyncio.to_thread(mine.recv)
        opener.join()
        report.line("slow_connections_opened", sum(opened.values()), "connections")
        report.line("slow_connections_at_once", most_files, "files")
        report.line("slow_connections_ended", len(lasted_s), "connections")
        report.line("slow_connections_longest", max(lasted_s, default=0.0), "s")
        report.line("slow_connections_left", len(process.net_connections()), "connections")
        report.line("slow_connections_took", time.monotonic() - opened_s, "s")
        await phase("after")
        report.line("slow_connections_loop_stall", 1000 * await loop_stall_s(metrics), "ms")
        beating.cancel()


@click.command()
@click.option("--connections", type=click.IntRange(4, 60_000), default=10_000, show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=20.0, show_default=True, help="Of a phase.")
def main(connections: int, seconds: float) -> None:
    """What many slow connections do to others, and how soon they are ended."""
    report = Report("slow_connections")
    _raise_file_limit(connections + 2000)  # the coordinator inherits it
    with tempfile.TemporaryDirectory() as folder, private_etcd() as endpoint:
        metrics = f"127.0.0.1:{free_port()}"
        coordinator = Coordinator(
            Path(folder), endpoint, metrics=metrics, unreachable_after_ms=10_000, connection_idle_s=15
        )
        try:
            asyncio.run(_measure(report, coordinator, metrics, connections, seconds))
        finally:
            coordinator.running.sweep()
    report.line("machine_load", os.getloadavg()[0], "processes")
    report.write({"connections": connections, "seconds": seconds})


if __name__ == "__main__":
    main()
