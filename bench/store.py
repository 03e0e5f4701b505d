"""Durable writes a second on a real etcd, one by one and in batches, in one run: `python -m bench.store`.

Each write is one key of 300 bytes, about what a job's status is. One by one: the next is committed when the
one before is durable. Batched: so many callers each append a write to the commit log and wait for it before
they append the next; what waits shares a transaction. The modes take turns, so that a machine that is busy
for a while is busy for all of them. At the end every write has to be in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import click
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue
from mumian_orchestrator.main.embedded import start_etcd
from mumian_orchestrator.main.local_processes import LocalProcesses
from mumian_orchestrator.ports.store import Write
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.leadership import campaign
from mumian_orchestrator.services.store.fenced import FencedStore

_VALUE = bytes(300)
_PREFIX = "/mumian-bench/"
_CALLERS = (50, 500)


@click.command()
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=2.0, show_default=True, help="Of a turn.")
@click.option("--turns", type=click.IntRange(1, 100), default=3, show_default=True, help="Of each mode.")
def store(seconds: float, turns: int) -> None:
    """Durable writes a second, one by one against batched; one line `name value unit` each."""
    with private_etcd() as endpoint:
        measured = asyncio.run(_measure(endpoint, seconds, turns))
    for name, waits_s in measured.items():
        waits_s.sort()
        click.echo(f"store_{name}_writes {len(waits_s) / (seconds * turns):.0f} per_s")
        for percent in (50, 99):
            wait_s = waits_s[max(0, -(-len(waits_s) * percent // 100) - 1)]
            click.echo(f"store_{name}_p{percent} {1000 * wait_s:.1f} ms")


@contextlib.contextmanager
def private_etcd() -> Iterator[str]:
    """An etcd of its own on this machine; its endpoint."""
    folder = Path(tempfile.mkdtemp(prefix="mumian-bench-"))
    processes = LocalProcesses(folder)
    try:
        yield start_etcd(processes, folder)
    finally:
        processes.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(endpoint: str, seconds: float, turns: int) -> dict[str, list[float]]:
    """How long each write took, in seconds, by mode."""
    client = EtcdClient([endpoint])
    kv = EtcdKeyValue(client)
    term = await campaign(kv, f"{_PREFIX}leader", "bench", 60)
    durable = FencedStore(kv, _PREFIX, term)
    await durable.load()
    waits_s: dict[str, list[float]] = {name: [] for name in ("one_by_one", *map(_batched, _CALLERS))}
    for turn in range(turns):
        alone = waits_s["one_by_one"]
        await _again_and_again(lambda write: durable.commit([write]), seconds, alone, f"alone/{turn}")
        for callers in _CALLERS:
            log = CommitLog(durable)
            running = asyncio.create_task(log.run())
            waits, name = waits_s[_batched(callers)], f"{callers}/{turn}"
            appending = [
                _again_and_again(lambda write: log.append([write]), seconds, waits, f"{name}/{caller}")  # noqa: B023
                for caller in range(callers)
            ]
            await asyncio.gather(*appending)
            running.cancel()
    stored, timed = len((await durable.load()).entries), sum(map(len, waits_s.values()))
    if stored != timed:
        raise click.ClickException(f"{timed} writes were acknowledged and {stored} are stored")
    await term.resign()
    await client.close()
    return waits_s


def _batched(callers: int) -> str:
    return f"batched_{callers}_callers"


async def _again_and_again(
    store_one: Callable[[Write], Awaitable[object]], seconds: float, waits_s: list[float], name: str
) -> None:
    end_s = time.perf_counter() + seconds
    for number in itertools.count():
        begun_s = time.perf_counter()
        if begun_s >= end_s:
            return
        await store_one(Write(f"{name}/{number}", _VALUE))
        waits_s.append(time.perf_counter() - begun_s)


if __name__ == "__main__":
    store()
