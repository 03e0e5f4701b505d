"""The twin's fast mode: the real engine, driven in batches; no store, no agents, no event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mumian.api.v1.fleet_pb2 import Site
from mumian.api.v1.job_pb2 import JOB_KIND_GANG, JobSpec
from mumian_core import Engine
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.arrivals import Arrival, task_id
from mumian_orchestrator.bench.sim.backend import Placed, Stage, sleep_until
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.links import Links, LinkState, Pair, link_messages
from mumian_orchestrator.bench.sim.moves import Moves
from mumian_orchestrator.bench.sim.policies import Cluster, Policy
from mumian_orchestrator.bench.sim.scenario import Scenario


class CoreBackend:
    """Delta, place, verify, delta: what scheduler and plan applier do with the engine, in virtual time."""

    stage: Stage

    def __init__(self, scenario: Scenario, policy: Policy, specs: world.Specs) -> None:
        self._scenario, self._policy, self._specs = scenario, policy, specs
        self._engine = Engine()
        self._evaluations = self._world_changes = 0
        self._sites: dict[str, Site] = {}
        self._links: dict[Pair, LinkState] = {}
        self._nodes = [node for site in scenario.sites for node in world.node_messages(site)]
        self._typical = specs.typical()
        self._moves = (
            Moves(scenario, specs, self._engine, policy.rearranging, lambda: self.stage)
            if policy.rearranging
            else None
        )
        self.decision_s = 0.0

    async def turn(self, now_s: int, up: Sequence[str], ended: Sequence[str]) -> None:
        """One delta."""
        await sleep_until(now_s)
        left = list(ended)
        if self._moves is not None:
            for task_id_ in up:
                self._moves.running.up(task_id_)
            left = [id_ for task_id_ in ended for id_ in self._moves.running.end(task_id_)]
            await asyncio.sleep(0)  # moves that have waited for room go on
        self._policy.ended(ended)
        self._free(left)

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
        if self._moves is not None:
            self._moves.running.see(sites, links)

    async def decide(
        self, now_s: int, lost: Sequence[str], waiting: Sequence[Arrival], arrived: Sequence[Arrival]
    ) -> list[Placed]:
        """One request for all."""
        self._policy.ended(lost)
        moves = self._moves
        gone = list(lost) if moves is None else [id_ for task in lost for id_ in moves.running.lose(task)]
        self._free(gone)
        tasks = {task.id: task for task in (*waiting, *arrived)}
        placed = self._place(now_s, tasks) if tasks else []
        if moves is not None:
            for place in placed:
                moves.running.start(tasks.pop(place.task_id), place)
            moves.running.wait(list(tasks.values()))
        return placed

    async def rearrange(self, now_s: int) -> None:
        """What the coordinator does by itself."""
        if self._moves is not None:
            await sleep_until(now_s + self._scenario.tick_s / 2)
            start = time.perf_counter()
            await self._moves.check()
            await asyncio.sleep(0)  # what re-optimisation has begun runs beside
            self.decision_s += time.perf_counter() - start

    def _place(self, now_s: int, tasks: Mapping[str, Arrival]) -> list[Placed]:
        self._evaluations += 1
        jobs = self._specs.pending(tasks.values())
        request = engine_pb2.PlaceRequest(
            evaluation_id=f"evaluation-{self._evaluations}",
            jobs=jobs,
            now_unix_s=world.EPOCH_UNIX_S + now_s,
        )
        about = _About(set(tasks), {job.job_id: job.spec for job in jobs})
        cluster = Cluster(
            snapshot=self._engine.snapshot(),
            nodes=self._nodes,
            sites=self._sites,
            links=self._links,
            carbon_kg_microcny=self._scenario.carbon_kg_microcny,
            typical=self._typical,
            world_changes=self._world_changes,
        )
        start = time.perf_counter()
        plan = self._policy.place(cluster, request)
        self.decision_s += time.perf_counter() - start
        return self._commit(plan, about)

    def _commit(self, plan: engine_pb2.Plan, about: _About) -> list[Placed]:
        """Book what the independent verifier accepts, which has to be all."""
        ids = [about.task_id(placement) for placement in plan.placements]
        stranger = next((id_ for id_ in ids if id_ not in about.pending), None)
        if stranger is not None:
            raise ScenarioError(f"policy {self._policy.name} placed {stranger}, which is not in the request")
        check = engine_pb2.VerifyRequest(
            plan=engine_pb2.Plan(evaluation_id=plan.evaluation_id, placements=plan.placements),
            jobs=[
                engine_pb2.PendingJob(job_id=job_id, spec=about.specs[job_id])
                for job_id in dict.fromkeys(p.job_id for p in plan.placements)
            ],
        )
        verdicts = engine_pb2.VerifyResponse.FromString(
            self._engine.snapshot().verify(check.SerializeToString())
        ).verdicts
        for placement, verdict in zip(plan.placements, verdicts, strict=True):
            if not verdict.accepted:
                raise ScenarioError(
                    f"policy {self._policy.name} put {placement.job_id} on {placement.node_id}, "
                    f"where it may not be: {verdict.rejection.reason}"
                )
        if plan.placements:
            self._apply(
                engine_pb2.Delta(allocations=[about.used(placement) for placement in plan.placements])
            )
        return [about.placed(placement) for placement in plan.placements]

    def _free(self, allocation_ids: Sequence[str]) -> None:
        if allocation_ids:
            self._apply(engine_pb2.Delta(removed_allocation_ids=allocation_ids))

    def _apply(self, delta: engine_pb2.Delta) -> None:
        delta.base_generation = self._engine.generation()
        self._engine.apply(delta.SerializeToString())


@dataclass(slots=True)
class _About:
    """What a decision is about: the tasks that may be placed, and their jobs."""

    pending: set[str]
    specs: dict[str, JobSpec]

    def task_id(self, placement: engine_pb2.Placement) -> str:
        """Whose place it is; of a job that nobody has named: the job's id."""
        spec = self.specs.get(placement.job_id)
        group = 0 if spec is None else world.group_number(spec, placement.task_group)
        return task_id(placement.job_id, group, placement.task_index)

    def placed(self, placement: engine_pb2.Placement) -> Placed:
        """The same for the simulation."""
        devices = tuple((share.device_index, share.milli) for share in placement.devices)
        return Placed(self.task_id(placement), placement.site_id, placement.node_id, devices)

    def used(self, placement: engine_pb2.Placement) -> engine_pb2.UsedResources:
        """The same for the engine."""
        spec = self.specs[placement.job_id]
        group = spec.task_groups[world.group_number(spec, placement.task_group)]
        return engine_pb2.UsedResources(
            allocation_id=self.task_id(placement),
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
