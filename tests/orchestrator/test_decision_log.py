"""What was decided can be made again from what was recorded, whatever was thrown away, torn or changed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from mumian.api.v1 import fleet_pb2
from mumian.api.v1.fleet_pb2 import Link, Node, Prices, Site
from mumian.api.v1.job_pb2 import Allocation, Job, JobSpec
from mumian.storage.v1.decision_pb2 import DecisionRecord
from mumian_core import Engine as NativeEngine
from mumian_core.v1 import engine_pb2
from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.core.replay import MadeAgain, condensed, made_again
from mumian_orchestrator.adapters.disk.decision_files import DecisionFilesError, files_in, records_in
from mumian_orchestrator.adapters.disk.decision_log import DiskDecisionLog
from mumian_orchestrator.domain.decision import PendingJob, TaskId

READY = fleet_pb2.HEALTH_READY
KEEP_BYTES = 60_000
SITES, NODES = ("a", "b", "c"), 4


class City:
    """Somebody who changes a small city and asks where tasks would go, by chance."""

    def __init__(self, seed: int, log: DiskDecisionLog) -> None:
        self._draw, self._engine = random.Random(seed), CoreEngine(engine_pb2.Policy(), decisions=log)
        self._live: list[str] = []
        self._spec = JobSpec()
        group = self._spec.task_groups.add(name="main", count=1)
        group.resources.cpu_milli, group.latency_slo.budget_us = 700, 5000
        group.latency_slo.zone_ids.append("z")
        self._engine.update(
            sites=[self._site(name) for name in SITES],
            nodes=[self._node(s, n) for s in SITES for n in range(NODES)],
            links=[self._link(name) for name in SITES],
        )

    def live(self, steps: int) -> None:
        """Change something, ask, and book what was answered; again and again."""
        for number in range(steps):
            name = self._draw.choice(SITES)
            match self._draw.randrange(6):
                case 0:
                    self._engine.update(sites=[self._site(name)])
                case 1:
                    self._engine.update(links=[self._link(name)])
                case 2:
                    node_id = f"{name}/{self._draw.randrange(NODES)}"
                    self._live = [id_ for id_ in self._live if not id_.endswith(f"@{node_id}")]
                    self._engine.update(removed_node_ids=[node_id])
                case 3 if self._live:
                    self._engine.update(freed=[self._live.pop(self._draw.randrange(len(self._live)))])
                case _:
                    self._engine.update(nodes=[self._node(name, self._draw.randrange(NODES))])
            self._ask(f"j{number}")

    def _ask(self, job_id: str) -> None:
        asked = PendingJob(job_id, self._spec, (TaskId("main", 0),), created_unix_s=0)
        for placement in asyncio.run(self._engine.place(job_id, [asked], now_unix_s=0)).placements:
            allocation = Allocation(
                id=f"{job_id}@{placement.node_id}",
                job_id=job_id,
                task_group="main",
                node_id=placement.node_id,
                resources=self._spec.task_groups[0].resources,
            )
            self._engine.update(booked=[(Job(id=job_id, spec=self._spec), allocation)])
            self._live.append(allocation.id)

    def _site(self, name: str) -> Site:
        price = self._draw.randrange(1, 9) * 100_000
        return Site(id=name, health=READY, prices=Prices(cpu_core_hour_microcny=price))

    def _node(self, site_id: str, number: int) -> Node:
        cores = self._draw.randrange(1, 4) * 1000
        return Node(id=f"{site_id}/{number}", site_id=site_id, health=READY, cpu_milli=cores, memory_mib=4096)

    def _link(self, site_id: str) -> Link:
        return Link(from_id="z", to_site_id=site_id, rtt_p99_us=self._draw.randrange(1000, 9000))


def log_in(folder: Path, keep_bytes: int) -> DiskDecisionLog:
    return DiskDecisionLog(folder, keep_bytes, condensed, SystemClock())


def kept(folder: Path) -> Iterator[DecisionRecord]:
    return (sealed.record for sealed in records_in(folder))


def all_made_again(folder: Path) -> list[MadeAgain]:
    return list(made_again(kept(folder), lambda _: True))


@pytest.mark.parametrize("seed", range(5))
def test_every_decision_that_is_kept_comes_out_the_same_bit_for_bit(tmp_path: Path, seed: int) -> None:
    """Also those in files whose first record is the whole state, put together from the file before."""
    log = log_in(tmp_path, keep_bytes=KEEP_BYTES)
    City(seed, log).live(300)
    log.close()
    files = files_in(tmp_path)
    assert len(files) > 4
    assert {path.suffix for path in files[:-1]} == {".gz"}
    assert sum(path.stat().st_size for path in files) <= KEEP_BYTES
    assert next(kept(tmp_path)).whole, "the oldest have been thrown away"
    again = all_made_again(tmp_path)
    assert {made.is_same for made in again} == {True}
    assert again[-1].request.evaluation_id == "j299"
    assert {len(made.plan.placements) for made in again} == {0, 1}


@pytest.mark.parametrize("seed", range(5))
def test_the_state_put_together_is_the_state(tmp_path: Path, seed: int) -> None:
    log = log_in(tmp_path, keep_bytes=10**9)
    City(seed, log).live(200)
    log.close()
    engine, records = NativeEngine(), list(kept(tmp_path))
    for record in records:
        if record.delta:
            engine.apply(record.delta)
    whole = NativeEngine()
    whole.apply(condensed(iter(records)))
    assert whole.generation() == engine.generation()
    # Put together once more, from itself, it stays what it is.
    once_more = condensed(iter([DecisionRecord(whole=condensed(iter(records)))]))
    assert once_more == condensed(iter(records))
    ask = next(record.question for record in records if record.question)
    assert whole.snapshot().place(ask) == engine.snapshot().place(ask)


def test_the_next_coordinator_goes_on_in_the_same_chain_behind_a_torn_end(tmp_path: Path) -> None:
    first = log_in(tmp_path, keep_bytes=10**9)
    City(1, first).live(20)
    first.close()
    [file] = files_in(tmp_path)
    file.write_bytes(file.read_bytes()[:-5])  # killed while it wrote
    count = len(list(records_in(tmp_path)))
    second = log_in(tmp_path, keep_bytes=10**9)
    City(2, second).live(20)
    second.close()
    assert len(files_in(tmp_path)) == 2
    assert len(list(records_in(tmp_path))) > count
    assert {made.is_same for made in all_made_again(tmp_path)} == {True}


def test_a_changed_record_and_a_file_that_is_gone_are_found(tmp_path: Path) -> None:
    log = log_in(tmp_path, keep_bytes=KEEP_BYTES)
    City(3, log).live(200)
    log.close()
    files = files_in(tmp_path)
    last = files[-1].read_bytes()
    middle = len(last) // 2
    files[-1].write_bytes(last[:middle] + bytes([last[middle] ^ 1]) + last[middle + 1 :])
    before = len(list(records_in_until_error(tmp_path)))
    assert before > 0
    files[-1].write_bytes(last)
    assert len(list(records_in(tmp_path))) > before
    files[-2].unlink()
    with pytest.raises(DecisionFilesError, match="changed, or some is missing"):
        list(records_in(tmp_path))


def records_in_until_error(folder: Path) -> Iterator[DecisionRecord]:
    """A changed length may also look like a torn end: then what is behind is left out."""
    try:
        yield from kept(folder)
    except DecisionFilesError:
        return


def test_a_full_disk_stops_the_record_and_not_the_placing(tmp_path: Path) -> None:
    log = log_in(tmp_path / "gone", keep_bytes=10**9)
    (tmp_path / "gone").rmdir()
    City(4, log).live(5)
    log.close()
    assert not (tmp_path / "gone").exists()
