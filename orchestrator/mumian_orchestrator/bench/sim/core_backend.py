"""The twin's fast mode: the real engine, driven in batches; no store, no agents, no event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from mumian.api.v1.fleet_pb2 import Site
from mumian.api.v1.job_pb2 import JOB_KIND_GANG, JobSpec
from mumian_core import Engine
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.arrivals import Arrival, task_id
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.links import Links, LinkState, Pair, link_messages
from mumian_orchestrator.bench.sim.policies import Cluster, Policy, RunningTask
from mumian_orchestrator.bench.sim.scenario import Scenario


class Placed(NamedTuple):
    """Where a task has gone, and how much of which devices it holds."""

    task_id: str
    site_id: str
    node_id: str
    devices_milli: tuple[tuple[int, int], ...] = ()


class Backend(Protocol):
    """What decides: the engine alone, or all services."""

    decision_s: float
    """Real time spent on decisions."""

    async def end(self, now_s: int, ended: Sequence[str]) -> None:
        """These tasks have ended by themselves since the last tick."""

    async def change(self, now_s: int, sites: Sequence[Site], links: Links) -> None:
        """The world is different from now on."""

    async def decide(
        self,
        now_s: int,
        lost: Sequence[str],
        waiting: Sequence[Arrival],
        arrived: Sequence[Arrival],
        movable: Callable[[], Mapping[str, Arrival]],
    ) -> list[Placed]:
        """Take note of what is lost with its site, then place what waits (oldest first) and what has arrived.

        What is `movable` is asked when needed; such a task in the answer has moved.
        """


class CoreBackend:
    """Delta, place, verify, delta: what scheduler and plan applier do with the engine."""

    def __init__(self, scenario: Scenario, policy: Policy, specs: world.Specs) -> None:
        self._scenario, self._policy, self._specs = scenario, policy, specs
        self._engine = Engine()
        self._evaluations = self._world_changes = 0
        self._sites: dict[str, Site] = {}
        self._links: dict[Pair, LinkState] = {}
        self._nodes = [node for site in scenario.sites for node in world.node_messages(site)]
        self._typical = specs.typical()
        self.decision_s = 0.0

    async def end(self, now_s: int, ended: Sequence[str]) -> None:  # noqa: ARG002
        """One delta."""
        if ended:
            self._policy.ended(ended)
            self._apply(engine_pb2.Delta(removed_allocation_ids=ended))

    async def change(self, now_s: int, sites: Sequence[Site], links: Links) -> None:  # noqa: ARG002
        """One delta."""
        first = not self._sites
        self._world_changes += 1
        self._links.update(links)
        self._sites.update((site.id, site) for site in sites)
        messages = link_messages(links, self._scenario.rtt_p99_factor)
        self._apply(
            engine_pb2.Delta(reset=first, sites=sites, nodes=self._nodes if first else (), links=messages)
        )

    async def decide(
        self,
        now_s: int,
        lost: Sequence[str],
        waiting: Sequence[Arrival],
        arrived: Sequence[Arrival],
        movable: Callable[[], Mapping[str, Arrival]],
    ) -> list[Placed]:
        """One request for all."""
        await self.end(now_s, lost)
        tasks = [*waiting, *arrived]
        if not tasks:
            return []
        self._evaluations += 1
        jobs = self._specs.pending(tasks)
        request = engine_pb2.PlaceRequest(
            evaluation_id=f"evaluation-{self._evaluations}",
            jobs=jobs,
            now_unix_s=world.EPOCH_UNIX_S + now_s,
        )
        about = _About({task.id for task in tasks}, {job.job_id: job.spec for job in jobs})

        def movable_tasks() -> Sequence[RunningTask]:
            found = [self._specs.running(task) for task in movable().values()]
            about.movable.update(task.id for task in found)
            about.specs.update((task.job_id, task.spec) for task in found)
            return found

        cluster = Cluster(
            snapshot=self._engine.snapshot(),
            nodes=self._nodes,
            sites=self._sites,
            links=self._links,
            carbon_kg_microcny=self._scenario.carbon_kg_microcny,
            typical=self._typical,
            movable=movable_tasks,
            world_changes=self._world_changes,
        )
        start = time.perf_counter()
        plan = self._policy.place(cluster, request)
        self.decision_s += time.perf_counter() - start
        return self._commit(plan, about)

    def _commit(self, plan: engine_pb2.Plan, about: _About) -> list[Placed]:
        """Book what the independent verifier accepts: in one go, or with moves in waves.

        In a wave, all that it places has room beside all that runs, as the coordinator's moves do: the old
        allocation gives its room back only when the new one is there.
        """
        placed: list[Placed] = []
        left = list(plan.placements)
        ids = [about.task_id(placement) for placement in left]
        has_moves = not about.movable.isdisjoint(ids)
        known = about.pending | about.movable
        stranger = next((i for i in ids if i not in known), None)
        if stranger is not None:
            raise ScenarioError(
                f"policy {self._policy.name} placed {stranger}, which is neither in the request nor movable"
            )
        while left:
            check = engine_pb2.VerifyRequest(
                plan=engine_pb2.Plan(evaluation_id=plan.evaluation_id, placements=left),
                jobs=[
                    engine_pb2.PendingJob(job_id=job_id, spec=about.specs[job_id])
                    for job_id in dict.fromkeys(p.job_id for p in left)
                ],
            )
            verdicts = engine_pb2.VerifyResponse.FromString(
                self._engine.snapshot().verify(check.SerializeToString())
            ).verdicts
            refused = [p for p, verdict in zip(left, verdicts, strict=True) if not verdict.accepted]
            if refused and not has_moves:
                reason = next(v.rejection.reason for v in verdicts if not v.accepted)
                raise ScenarioError(
                    f"policy {self._policy.name} put {refused[0].job_id} on {refused[0].node_id}, "
                    f"where it may not be: {reason}"
                )
            accepted = [p for p, verdict in zip(left, verdicts, strict=True) if verdict.accepted]
            if not accepted:
                break  # the rest has no room beside what runs: it stays, or waits
            self._apply(engine_pb2.Delta(allocations=[about.used(placement) for placement in accepted]))
            placed += [about.placed(placement) for placement in accepted]
            left = refused
        return placed

    def _apply(self, delta: engine_pb2.Delta) -> None:
        delta.base_generation = self._engine.generation()
        self._engine.apply(delta.SerializeToString())


@dataclass(slots=True)
class _About:
    """What a decision is about: the tasks that may be placed and moved, and their jobs."""

    pending: set[str]
    specs: dict[str, JobSpec]
    movable: set[str] = field(default_factory=set)

    def task_id(self, placement: engine_pb2.Placement) -> str:
        """Whose place it is; of a job that nobody has named: the job's id."""
        spec = self.specs.get(placement.job_id)
        group = 0 if spec is None else group_number(spec, placement.task_group)
        return task_id(placement.job_id, group, placement.task_index)

    def placed(self, placement: engine_pb2.Placement) -> Placed:
        """The same for the simulation."""
        devices = tuple((share.device_index, share.milli) for share in placement.devices)
        return Placed(self.task_id(placement), placement.site_id, placement.node_id, devices)

    def used(self, placement: engine_pb2.Placement) -> engine_pb2.UsedResources:
        """The same for the engine."""
        spec = self.specs[placement.job_id]
        group = spec.task_groups[group_number(spec, placement.task_group)]
        return engine_pb2.UsedResources(
            allocation_id=self.task_id(placement),  # that of a task that moves is replaced
            node_id=placement.node_id,
            resources=group.resources,
            devices=placement.devices,
            job_id=placement.job_id,
            task_group=placement.task_group,
            task_index=placement.task_index,
            zone_traffic=group.zone_traffic,
            priority=spec.priority,
            gang=spec.kind == JOB_KIND_GANG,
        )


def group_number(spec: JobSpec, name: str) -> int:
    """Which of its job's groups has that name; of none: the first."""
    return next((n for n, group in enumerate(spec.task_groups) if group.name == name), 0)
