"""The twin's fast mode: the real engine, driven in batches; no store, no agents, no event loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mumian.api.v1.fleet_pb2 import Link, Site
from mumian.api.v1.job_pb2 import JobSpec
from mumian_core import Engine
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.arrivals import Arrival
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.policies import Cluster, Policy, Room, take
from mumian_orchestrator.bench.sim.scenario import Scenario


class Placed(NamedTuple):
    """Where a task has gone."""

    task_id: str
    site_id: str
    node_id: str


class Backend(Protocol):
    """What decides: the engine alone, or all services."""

    decision_s: float
    """Real time spent on decisions."""

    async def change(self, now_s: int, sites: Sequence[Site], rtt_p99_us: dict[tuple[str, str], int]) -> None:
        """The world is different from now on."""

    async def decide(
        self, now_s: int, ended: Sequence[str], waiting: Sequence[Arrival], arrived: Sequence[Arrival]
    ) -> list[Placed]:
        """Take note of what has ended, then place what waits (oldest first) and what has arrived."""


class CoreBackend:
    """Delta, place, verify, delta: what scheduler and plan applier do with the engine."""

    def __init__(self, scenario: Scenario, policy: Policy, specs: world.Specs) -> None:
        self._scenario, self._policy, self._specs = scenario, policy, specs
        self._engine = Engine()
        self._evaluations = 0
        self._rooms: dict[str, Room] = {}
        self._held: dict[str, tuple[str, JobSpec, list[engine_pb2.UsedResources]]] = {}
        self._reachable: set[str] = set()
        self._rtt_p99_us: dict[tuple[str, str], int] = {}
        self.decision_s = 0.0
        nodes = [node for site in scenario.sites for node in world.node_messages(site)]
        self._nodes = nodes
        if policy.looks_at_rooms:
            for node in nodes:
                devices = [1000] * sum(a.count for a in node.accelerators)
                self._rooms[node.id] = Room(node, node.cpu_milli, node.memory_mib, devices)

    async def change(self, now_s: int, sites: Sequence[Site], rtt_p99_us: dict[tuple[str, str], int]) -> None:  # noqa: ARG002
        """One delta."""
        first = not self._reachable and self._engine.generation() == 0
        self._rtt_p99_us.update(rtt_p99_us)
        ready = {site.id for site in sites if site.health == 1}
        self._reachable = (self._reachable - {site.id for site in sites}) | ready
        messages: list[Link] = world.link_messages(rtt_p99_us, self._scenario.rtt_p99_factor)
        self._apply(
            engine_pb2.Delta(reset=first, sites=sites, nodes=self._nodes if first else (), links=messages)
        )

    async def decide(
        self, now_s: int, ended: Sequence[str], waiting: Sequence[Arrival], arrived: Sequence[Arrival]
    ) -> list[Placed]:
        """One request for all."""
        if ended:
            self._free(ended)
        tasks = [*waiting, *arrived]
        if not tasks:
            return []
        self._evaluations += 1
        jobs = [engine_pb2.PendingJob(job_id=task.id, spec=self._specs.of(task)) for task in tasks]
        request = engine_pb2.PlaceRequest(
            evaluation_id=f"evaluation-{self._evaluations}",
            jobs=jobs,
            now_unix_s=world.EPOCH_UNIX_S + now_s,
        )
        snapshot = self._engine.snapshot()
        cluster = Cluster(
            snapshot, self._rooms, self._reachable, self._rtt_p99_us, self._scenario.carbon_kg_microcny
        )
        start = time.perf_counter()
        plan = self._policy.place(cluster, request)
        self.decision_s += time.perf_counter() - start
        return self._commit(plan, {job.job_id: job for job in jobs})

    def _commit(self, plan: engine_pb2.Plan, jobs: dict[str, engine_pb2.PendingJob]) -> list[Placed]:
        """Book what the independent verifier accepts."""
        about = [jobs[placement.job_id] for placement in plan.placements]
        del plan.explanations[:], plan.unplaced[:]
        check = engine_pb2.VerifyRequest(plan=plan, jobs=about)
        verdicts = engine_pb2.VerifyResponse.FromString(
            self._engine.snapshot().verify(check.SerializeToString())
        ).verdicts
        delta, placed = engine_pb2.Delta(), []
        for placement, verdict in zip(plan.placements, verdicts, strict=True):
            if not verdict.accepted:
                raise ScenarioError(
                    f"policy {self._policy.name} put {placement.job_id} on {placement.node_id}, "
                    f"where it may not be: {verdict.rejection.reason}"
                )
            job = jobs[placement.job_id]
            group = job.spec.task_groups[0]
            delta.allocations.add(
                allocation_id=placement.job_id,
                node_id=placement.node_id,
                resources=group.resources,
                devices=placement.devices,
                job_id=placement.job_id,
                task_group="main",
                priority=job.spec.priority,
            )
            if self._rooms:
                take(self._rooms[placement.node_id], job)
                self._held[placement.job_id] = (placement.node_id, job.spec, [delta.allocations[-1]])
            placed.append(Placed(placement.job_id, placement.site_id, placement.node_id))
        if placed:
            self._apply(delta)
        return placed

    def _free(self, ended: Sequence[str]) -> None:
        for task_id in ended if self._rooms else ():
            node_id, spec, [used] = self._held.pop(task_id)
            room, want = self._rooms[node_id], spec.task_groups[0].resources
            room.cpu_milli += want.cpu_milli
            room.memory_mib += want.memory_mib
            for share in used.devices:
                room.devices_milli[share.device_index] += share.milli
        self._apply(engine_pb2.Delta(removed_allocation_ids=ended))

    def _apply(self, delta: engine_pb2.Delta) -> None:
        delta.base_generation = self._engine.generation()
        self._engine.apply(delta.SerializeToString())
