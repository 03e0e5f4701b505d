"""The engine is told which task an allocation is, so that constraints count what runs."""

from __future__ import annotations

import asyncio

from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.fleet_pb2 import Link, Node, Site
from mumian.api.v1.job_pb2 import Allocation, Job, JobSpec
from mumian_core.v1 import engine_pb2
from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.domain.decision import PendingJob, TaskId

READY = fleet_pb2.HEALTH_READY


def engine(*site_ids: str) -> CoreEngine:
    """An engine with one node a site and a link of 10 Mbit/s from zone z to each."""
    made = CoreEngine(engine_pb2.Policy())
    made.update(
        sites=[Site(id=site_id, health=READY) for site_id in site_ids],
        nodes=[
            Node(id=f"{s}/n1", site_id=s, health=READY, cpu_milli=9000, memory_mib=9000) for s in site_ids
        ],
        links=[Link(from_id="z", to_site_id=s, rtt_p99_us=1, bandwidth_kbps=10_000) for s in site_ids],
    )
    return made


def running(spec: JobSpec, node_id: str) -> tuple[Job, Allocation]:
    """The first task of a job, on a node."""
    allocation = Allocation(id="job.main.0", job_id="job", task_group="main", node_id=node_id)
    return Job(id="job", spec=spec), allocation


def placed(made: CoreEngine, spec: JobSpec) -> list[str]:
    """Where the second task goes, as verified."""
    job = PendingJob("job", spec, (TaskId("main", 1),), created_unix_s=0)
    decision = asyncio.run(made.place("evaluation", [job], now_unix_s=0))
    return [placement.site_id for placement in made.verify(decision, [job]).placements]


def test_a_task_that_runs_counts_for_the_spread() -> None:
    spec = JobSpec()
    group = spec.task_groups.add(name="main", count=2)
    group.spreads.add(topology=job_pb2.TOPOLOGY_SITE, max_tasks=1)
    made = engine("a", "b")
    assert placed(made, spec) == ["a"]
    made.update(booked=[running(spec, "a/n1")])
    assert placed(made, spec) == ["b"]
    made.update(freed=["job.main.0"])
    assert placed(made, spec) == ["a"]


def test_a_task_that_runs_keeps_its_bandwidth() -> None:
    spec = JobSpec()
    spec.task_groups.add(name="main", count=2).zone_traffic.add(zone_id="z", bandwidth_kbps=6000)
    made = engine("a", "b")
    made.update(booked=[running(spec, "a/n1")])
    assert placed(made, spec) == ["b"]
