"""The coordinator's own moves in the fast mode: its drift and its re-optimisation, over what runs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from mumian.api.v1 import job_pb2
from mumian.api.v1.fleet_pb2 import HEALTH_UNREACHABLE, Site
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian_core import Engine as NativeEngine

from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock
from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.arrivals import Arrival, task_id
from mumian_orchestrator.bench.sim.backend import Placed, Stage
from mumian_orchestrator.bench.sim.links import Links
from mumian_orchestrator.bench.sim.policies import Rearranging
from mumian_orchestrator.bench.sim.scenario import Scenario
from mumian_orchestrator.domain.allocation import allocation_of
from mumian_orchestrator.domain.arrangement import SearchLimits
from mumian_orchestrator.domain.decision import Decision, PendingJob, Placement, TaskId
from mumian_orchestrator.domain.handover import advance, is_movable
from mumian_orchestrator.domain.holds import Holds
from mumian_orchestrator.domain.job_state import task_of
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.services.arrangements import Arrangements
from mumian_orchestrator.services.drift import Drift
from mumian_orchestrator.services.handovers import takes_over_within_s
from mumian_orchestrator.services.reoptimisation import Reoptimisation

# Rounds, not seconds: the same run gives the same moves on any machine.
_ROUNDS = 20


def search_limits(rearranging: Rearranging) -> SearchLimits:
    """How far one look at the whole fleet goes."""
    return SearchLimits(time_limit_ms=0, moves_max=rearranging.moves_max, rounds_max=_ROUNDS)


class Moves:
    """Drift and re-optimisation as the coordinator has them, on a table of what runs.

    Args:
        native: the engine that tasks are placed and ended on.
    """

    def __init__(
        self,
        scenario: Scenario,
        specs: world.Specs,
        native: NativeEngine,
        rearranging: Rearranging,
        stage: Callable[[], Stage],
    ) -> None:
        clock, holds = VirtualClock(), Holds()
        engine = CoreEngine(Config(carbon_kg_microcny=scenario.carbon_kg_microcny).policy, native)
        self.running = running = RunningServices(scenario, specs, engine, clock, stage)
        self._reoptimisation = Reoptimisation(
            running,
            engine,
            Arrangements(running, running, running, clock),
            running,
            running,
            holds,
            clock,
            search_limits(rearranging),
            rearranging.every_s,
        )
        self._drift = Drift(running, running, engine, engine, running, self._reoptimisation, holds, clock)
        running.is_broken = self._drift.is_broken

    async def check(self) -> None:
        """Begin what is to move now."""
        await self._drift.check()
        self.running.changed_sites.clear()
        await self._reoptimisation.check()


class RunningServices:
    """What drift and re-optimisation ask of the coordinator's table, fleet, plan applier and handovers.

    It keeps services, and jobs of several tasks, whose tasks that wait are told by those that do not.

    Args:
        changed_sites: where promises may have broken since drift looked last.
        is_broken: whether drift knows of an allocation whose promise does not hold.
    """

    def __init__(
        self,
        scenario: Scenario,
        specs: world.Specs,
        engine: CoreEngine,
        clock: VirtualClock,
        stage: Callable[[], Stage],
    ) -> None:
        self._classes, self._specs, self._engine = scenario.jobs, specs, engine
        self._clock, self._stage = clock, stage
        self.changed_sites: set[str] = set()
        self.is_broken: Callable[[str], bool] = lambda _: False
        self._sites: dict[str, Site] = {}
        self._jobs: dict[str, Job] = {}
        self._standing: dict[str, tuple[Job, Allocation]] = {}  # by task, as are the others
        self._coming: dict[str, Allocation] = {}
        self._ended: dict[str, int] = {}  # tasks, by job
        self._waiting: Sequence[Arrival] = ()
        self._settled = asyncio.Event()
        self._copies = itertools.count(1)

    # What the simulation tells.

    def see(self, sites: Iterable[Site], links: Links) -> None:
        """Sites as they are now, and the links that have changed. Copies that were starting at a site that is
        lost are gone.
        """
        self.changed_sites |= {site.id for site in sites if self._sites.get(site.id) != site}
        self.changed_sites |= {end for pair in links for end in pair}
        self._sites.update((site.id, site) for site in sites)
        for id_, successor in list(self._coming.items()):
            if not self.is_reachable(successor.site_id):
                self._engine.update(freed=[self._drop(id_).id])

    def wait(self, tasks: Sequence[Arrival]) -> None:
        """These have no place."""
        self._waiting = tasks

    def start(self, task: Arrival, placed: Placed) -> None:
        """A task has its place, booked under its own id."""
        declared = self._classes[task.job_class]
        if not declared.is_movable and declared.is_single:
            return
        job = self._jobs.get(task.job_id)
        if job is None:
            job = self._jobs[task.job_id] = Job(id=task.job_id, spec=self._specs.of(task))
        group = self._specs.group_of(task)
        job.allocations.append(
            Allocation(
                id=task.id,
                job_id=job.id,
                task_group=group.name,
                task_index=task.task_index,
                attempt=1,
                site_id=placed.site_id,
                node_id=placed.node_id,
                resources=group.resources,
                state=job_pb2.ALLOCATION_STATE_STARTING
                if declared.start_s
                else job_pb2.ALLOCATION_STATE_RUNNING,
                create_time=self._clock.now(),
            )
        )
        self._standing[task.id] = job, job.allocations[-1]

    def up(self, id_: str) -> None:
        """A task is up, be it at its new place."""
        if id_ in self._coming:
            self._take_over(id_)
        elif id_ in self._standing:
            _, allocation = self._standing[id_]
            allocation.state = job_pb2.ALLOCATION_STATE_RUNNING

    def end(self, id_: str) -> list[str]:
        """A task has ended; the allocations that it leaves."""
        if id_ not in self._standing:
            return [id_]
        job, allocation = self._standing.pop(id_)
        allocation.state = job_pb2.ALLOCATION_STATE_SUCCEEDED
        left = [allocation.id]
        if id_ in self._coming:
            left.append(self._drop(id_).id)
        self._ended[job.id] = ended = self._ended.get(job.id, 0) + 1
        if ended == sum(group.count for group in job.spec.task_groups):
            del self._jobs[job.id], self._ended[job.id]
        return left

    def lose(self, id_: str) -> list[str]:
        """A task is lost with its site; the allocations that are gone."""
        if id_ not in self._standing:
            return [id_]
        job, allocation = self._standing.pop(id_)
        successor = self._coming.pop(id_, None)
        for known in [a for a in job.allocations if task_of(a) == task_of(allocation)]:
            if successor is None or known.id != successor.id:
                job.allocations.remove(known)
        if successor is not None:
            successor.takes_over_from = ""
            self._standing[id_] = job, successor
            self._settled.set()
        return [allocation.id]

    # What drift and re-optimisation ask for.

    def all_sites(self) -> Sequence[Site]:
        """As they are now."""
        return list(self._sites.values())

    def is_reachable(self, site_id: str) -> bool:
        """Whether it has not been lost."""
        return self._sites[site_id].health != HEALTH_UNREACHABLE

    def is_waiting(self, job_id: str) -> bool:  # noqa: ARG002 - nothing is evicted in the fast mode
        """Whether the job has a place that others have still to leave."""
        return False

    def get(self, job_id: str) -> Job | None:
        """One that is kept here."""
        return self._jobs.get(job_id)

    def jobs(self) -> Iterable[Job]:
        """All that are kept here, and those that wait."""
        yield from self._jobs.values()
        seen = set(self._jobs)
        for task in self._waiting:
            if task.job_id not in seen:
                seen.add(task.job_id)
                yield Job(id=task.job_id, spec=self._specs.of(task))

    def live_allocations(self, site_id: str = "") -> Iterator[tuple[Job, Allocation]]:
        """Those whose promise may have come to be broken or to hold again."""
        for job, allocation in list(self._standing.values()):
            at = allocation.site_id
            if (at in self.changed_sites or self.is_broken(allocation.id)) and site_id in ("", at):
                yield job, allocation

    def begin_moves(
        self,
        decision: Decision,
        jobs: Sequence[PendingJob],
        leaving: Mapping[tuple[str, TaskId], str],
        why: str = "",  # noqa: ARG002 - nobody reads it here
    ) -> list[Allocation]:
        """Book those that have room beside all that runs now, and start them."""
        begun = []
        for placement in self._engine.verify(decision, jobs).placements:
            job = self._jobs[placement.job_id]
            id_ = _task_id(job, placement.task)
            _, old = self._standing[id_]
            if old.id != leaving[placement.job_id, placement.task] or not is_movable(job, old):
                continue
            job.allocations.append(self.successor(job, placement, old.id))
            made = self._coming[id_] = job.allocations[-1]
            self._engine.update(booked=[(job, made)])
            begun.append(made)
            devices = tuple((share.device_index, share.milli) for share in made.devices)
            if self._stage().begin_move(Placed(id_, made.site_id, made.node_id, devices)):
                self._take_over(id_)
        return begun

    def successor(self, job: Job, placement: Placement, old_id: str) -> Allocation:
        """The allocation that would take over."""
        copy_id = f"{_task_id(job, placement.task)}.copy-{next(self._copies)}"
        made = allocation_of(
            placement, job, job.spec, copy_id, job_pb2.ALLOCATION_STATE_STARTING, self._clock.now()
        )
        made.takes_over_from = old_id
        return made

    async def settled(self, successor_ids: Collection[str]) -> None:
        """Wait until none of them is under way."""
        while any(successor.id in successor_ids for successor in self._coming.values()):
            self._settled.clear()
            await self._settled.wait()

    def give_up_overdue(self) -> None:
        """Stop those that take too long."""
        now_s = self._clock.now().seconds
        for id_, successor in list(self._coming.items()):
            job, _ = self._standing[id_]
            if successor.create_time.seconds < now_s - takes_over_within_s(job, successor):
                self._engine.update(freed=[self._drop(id_).id])
                self._stage().give_up_move(id_)

    def _take_over(self, id_: str) -> None:
        job, old = self._standing[id_]
        successor = self._coming.pop(id_)
        successor.state = job_pb2.ALLOCATION_STATE_RUNNING
        for changed in advance(job, successor):
            changed.state = job_pb2.ALLOCATION_STATE_CANCELLED  # it is told to stop, and does at once
        self._standing[id_] = job, successor
        self._engine.update(freed=[old.id])
        self._settled.set()

    def _drop(self, id_: str) -> Allocation:
        successor = self._coming.pop(id_)
        successor.state = job_pb2.ALLOCATION_STATE_CANCELLED
        self._settled.set()
        return successor


def _task_id(job: Job, task: TaskId) -> str:
    return task_id(job.id, world.group_number(job.spec, task.group), task.index)
