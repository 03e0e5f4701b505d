"""A solver that panics, overruns or plans what cannot be: nothing of it is committed, and placing goes on."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.job_pb2 import JobSpec
from mumian.api.v1.resources_pb2 import Accelerator, AcceleratorRequest
from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.domain.decision import Decision, PendingJob
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.ports.engine import EnginePanickedError

from tests.memory.city import City
from tests.memory.leader import leading
from tests.orchestrator.tenant import spec_of

DEADLINE_S = Config().solver_deadline_ms / 1000
Corruption = Callable[[Decision], Decision]


def all_on_the_first_node(decision: Decision) -> Decision:
    placed = [dataclasses.replace(p, site_id="a", node_id="a/n1") for p in decision.placements]
    return dataclasses.replace(decision, placements=placed)


def on_a_node_that_is_not_there(decision: Decision) -> Decision:
    placed = [dataclasses.replace(p, node_id="a/n9") for p in decision.placements]
    return dataclasses.replace(decision, placements=placed)


def every_task_twice(decision: Decision) -> Decision:
    return dataclasses.replace(decision, placements=[p for p in decision.placements for _ in "12"])


def of_another_job(decision: Decision) -> Decision:
    placed = [dataclasses.replace(p, job_id="nobody") for p in decision.placements]
    return dataclasses.replace(decision, placements=placed)


class FaultyEngine(CoreEngine):
    """The real engine, which fails when a test says so."""

    def __init__(self) -> None:
        super().__init__(Config().policy)
        self.fault: str | Corruption = ""
        self.asked = 0
        self.verifier_fails = False

    async def place(
        self, evaluation_id: str, jobs: Sequence[PendingJob], now_unix_s: int, *, may_evict: bool = False
    ) -> Decision:
        self.asked += 1
        if self.fault == "panic":
            raise EnginePanickedError("PANIC: injected")
        if self.fault == "error":
            raise KeyError("injected")
        if self.fault == "overrun":
            await asyncio.sleep(10 * DEADLINE_S)
        decision = await super().place(evaluation_id, jobs, now_unix_s, may_evict=may_evict)
        return self.fault(decision) if callable(self.fault) else decision

    def verify(self, decision: Decision, jobs: Sequence[PendingJob]) -> Decision:
        if self.verifier_fails:
            raise EnginePanickedError("PANIC: injected")
        return super().verify(decision, jobs)


async def connect(services: Services, **node: Any) -> City:
    """Three sites of four cores."""
    city = City(services, *"abc")
    for site in city.sites.values():
        site.node.MergeFrom(fleet_pb2.Node(**node))
    await city.connect()
    return city


def used_milli(services: Services) -> Counter[str]:
    used: Counter[str] = Counter()
    for _, allocation in services.table.live_allocations():
        used[allocation.node_id] += allocation.resources.cpu_milli
    return used


async def placed(services: Services, spec: JobSpec, request_id: str) -> list[str]:
    """Where the tasks of a new job are after a while."""
    job = await services.admission.create("acme", request_id, spec)
    await asyncio.sleep(2 * DEADLINE_S)
    return [allocation.node_id for allocation in services.admission.get("acme", job.id).allocations]


@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        ("panic", "panic"),
        ("error", "error"),
        ("overrun", "overrun"),
        (all_on_the_first_node, "infeasible"),
        (on_a_node_that_is_not_there, "infeasible"),
        (every_task_twice, "infeasible"),
    ],
)
async def test_a_fault_is_counted_and_first_fit_goes_on(fault: str | Corruption, counted: str) -> None:
    engine = FaultyEngine()
    async with leading(MemoryCluster(), engine=engine) as services:
        await connect(services)
        engine.fault = fault
        # More than one node holds, less than all.
        nodes = await placed(services, spec_of("work", count=10), "r1")
        assert len(nodes) == 10
        assert max(used_milli(services).values()) <= 4000
        assert services.solver.faults == {counted: 1}
        engine.fault = ""
        await asyncio.sleep(20 * DEADLINE_S)
        asked = engine.asked
        assert len(await placed(services, spec_of("more"), "r2")) == 1
        assert (engine.asked, services.solver.faults) == (asked + 1, {counted: 1})


async def test_placements_for_others_than_were_asked_for_are_dropped() -> None:
    engine = FaultyEngine()
    async with leading(MemoryCluster(), engine=engine) as services:
        await connect(services)
        engine.fault = of_another_job
        assert await placed(services, spec_of("work"), "r") == []
        engine.fault = ""
        services.scheduler.evaluate_waiting()
        await asyncio.sleep(1)
        assert sum(used_milli(services).values()) == 1000


async def test_while_one_plan_overruns_no_second_one_is_begun() -> None:
    engine = FaultyEngine()
    async with leading(MemoryCluster(), engine=engine) as services:
        await connect(services)
        engine.fault = "overrun"
        for number in range(3):
            assert len(await placed(services, spec_of("work"), f"r{number}")) == 1
        assert (engine.asked, services.solver.faults["overrun"]) == (1, 1)


async def test_nothing_is_committed_that_is_not_verified_and_the_jobs_wait() -> None:
    engine = FaultyEngine()
    async with leading(MemoryCluster(), engine=engine) as services:
        await connect(services)
        engine.verifier_fails = True
        assert await placed(services, spec_of("work"), "r") == []
        assert services.solver.faults["verifier"] >= 1
        engine.verifier_fails = False
        await asyncio.sleep(10)
        assert sum(used_milli(services).values()) == 1000


async def test_first_fit_keeps_gangs_whole_and_devices_apart() -> None:
    engine = FaultyEngine()
    async with leading(MemoryCluster(), engine=engine) as services:
        gpus = [Accelerator(kind="gpu", model="H100", count=2)]
        await connect(services, accelerators=gpus)
        engine.fault = "panic"
        spec = spec_of("gang", count=6, cpu_milli=100, kind=job_pb2.JOB_KIND_GANG)
        spec.task_groups[0].resources.accelerators.CopyFrom(AcceleratorRequest(milli=1000, models=["H100"]))
        assert sorted(await placed(services, spec, "fits")) == [
            "a/n1",
            "a/n1",
            "b/n1",
            "b/n1",
            "c/n1",
            "c/n1",
        ]
        [job] = services.admission.list("acme", [])
        taken = [(a.node_id, share.device_index) for a in job.allocations for share in a.devices]
        assert len(set(taken)) == 6
        assert await placed(services, spec, "does-not-fit") == []
