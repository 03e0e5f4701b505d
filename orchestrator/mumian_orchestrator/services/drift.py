"""What runs where it no longer should: promises that do not hold any more, prices that have changed."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mumian.api.v1 import explanation_pb2, job_pb2
from mumian.api.v1.explanation_pb2 import Rejection
from mumian.api.v1.job_pb2 import Allocation, Job

from mumian_orchestrator.domain.arrangement import RunningTask
from mumian_orchestrator.domain.decision import PendingJob
from mumian_orchestrator.domain.handover import is_movable
from mumian_orchestrator.domain.holds import Holds
from mumian_orchestrator.domain.job_state import task_of
from mumian_orchestrator.domain.receipt import rates_over
from mumian_orchestrator.domain.rollout import group_of
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.engine import Engine, EngineRefusedError, View
from mumian_orchestrator.services.movers import Jobs, Mover, Placer, Sites
from mumian_orchestrator.services.reoptimisation import Reoptimisation

log = logging.getLogger(__name__)

PATIENCE_MS = 60_000
_LOOK_EVERY_S = 5.0
# So many tasks at a time, and then the event loop's other work has its turn: it takes 10 to 20 ms.
_ASSESSED_AT_ONCE = 500
# A task that could not be moved is tried again after so long.
_AGAIN_S = 30.0
_MOVES_AT_ONCE = 16
# A PUE or a price that has changed by so much, for so long, is worth another look at the whole fleet, but not
# more often than that.
PUE_CHANGE_PERMILLE, PRICE_CHANGE_PERMILLE = 30, 30
SETTLED_AFTER_S, REPLAN_EVERY_S = 60.0, 600.0
_PROMISES = frozenset(
    {
        explanation_pb2.FILTER_LATENCY_SLO,
        explanation_pb2.FILTER_GROUP_LATENCY,
        explanation_pb2.FILTER_PUE_CEILING,
        explanation_pb2.FILTER_RENT_CEILING,
    }
)


@dataclass(slots=True)
class _Broken:
    """A promise to a running task that does not hold."""

    since_s: float
    reason: str = ""
    again_s: float = 0.0  # when a move is tried next
    obstacle: str = ""  # why it has not moved


class Drift:
    """Looks every few seconds. A move is make-before-break, as every move of a service."""

    def __init__(
        self,
        table: Jobs,
        fleet: Sites,
        engine: Engine,
        solver: Placer,
        applier: Mover,
        reoptimisation: Reoptimisation,
        holds: Holds,
        clock: Clock,
    ) -> None:
        self._table, self._fleet, self._engine, self._solver = table, fleet, engine, solver
        self._applier, self._reoptimisation, self._holds = applier, reoptimisation, holds
        self._clock = clock
        self._broken: dict[str, _Broken] = {}  # by allocation
        self._numbers = itertools.count(1)
        # What each site cost when the fleet was last looked at, and since when that is otherwise.
        self._planned_with: dict[str, Sequence[int]] = {}
        self._changed_s: float | None = None
        self._replanned_s = -REPLAN_EVERY_S

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await self.check()
            except Exception:
                # Nobody depends on it, so a defect here must not end the term.
                log.exception("defect: drift was not looked at; nothing moves")

    def is_broken(self, allocation_id: str) -> bool:
        """Whether it was where its promise does not hold when it was last looked at."""
        return allocation_id in self._broken

    async def check(self) -> None:
        """Move what has to move now."""
        await self.look()
        await self.replan_if_changed()

    def describe(self, job: Job) -> list[str]:
        """Whose promises do not hold now, one sentence each."""
        now_s = self._clock.monotonic_s()
        told = []
        for allocation in job.allocations:
            broken = self._broken.get(allocation.id)
            if broken is not None:
                task = f"{allocation.task_group}.{allocation.task_index} on {allocation.node_id}"
                obstacle = f"; {broken.obstacle}" if broken.obstacle else ""
                since_s = now_s - broken.since_s
                told.append(
                    f"{task}: its promise has not held for {since_s:.0f} s: {broken.reason}{obstacle}"
                )
        return told

    async def look(self) -> None:
        """Move the tasks whose promises have been broken for longer than their patience."""
        view, watched = self._engine.view(), self._watched()
        found: dict[str, _Broken] = {}
        due: list[tuple[Job, Allocation]] = []
        while some := list(itertools.islice(watched, _ASSESSED_AT_ONCE)):
            rejections = await self._rejections(view, some)
            now_s = self._clock.monotonic_s()
            for (job, allocation), rejection in zip(some, rejections, strict=True):
                if rejection is None or rejection.filter not in _PROMISES or not is_movable(job, allocation):
                    continue
                broken = found[allocation.id] = self._broken.get(allocation.id) or _Broken(now_s)
                broken.reason = rejection.reason
                patience_ms = group_of(job, allocation).latency_slo.patience_ms or PATIENCE_MS
                # In whole milliseconds: the clock's fractions are no reason to wait for another look.
                if round(1000 * (now_s - broken.since_s)) >= patience_ms and now_s >= broken.again_s:
                    due.append((job, allocation))
        self._broken = found
        for job, allocation in due[:_MOVES_AT_ONCE]:
            await self._move(job, allocation, self._broken[allocation.id])
        self._holds.forget(self._clock.monotonic_s())

    async def _rejections(
        self, view: View, tasks: Sequence[tuple[Job, Allocation]]
    ) -> Sequence[Rejection | None]:
        jobs = {job.id: PendingJob(job.id, job.spec, (), job.create_time.seconds) for job, _ in tasks}
        running = [RunningTask(a.id, job.id, task_of(a), a.site_id, a.node_id) for job, a in tasks]
        return await view.rejections(list(jobs.values()), running, self._clock.now().seconds)

    async def _move(self, job: Job, allocation: Allocation, broken: _Broken) -> None:
        task, now_s = task_of(allocation), self._clock.monotonic_s()
        broken.again_s = now_s + _AGAIN_S
        asked = PendingJob(job.id, job.spec, (task,), job.create_time.seconds)
        number, now_unix_s = next(self._numbers), self._clock.now().seconds
        try:
            decision = await self._solver.place(f"drift-{number}", [asked], now_unix_s, may_evict=False)
        except EngineRefusedError as error:
            broken.obstacle = f"no other place can be asked for: {error}"
            return
        placements = decision.placements
        if not placements:
            broken.obstacle = "there is no place where it would hold"
            return
        site_id = placements[0].site_id
        held_s = self._holds.left_s(job.id, task.group, site_id, now_s)
        if held_s:
            broken.obstacle = (
                f"it would hold at {site_id}, where it was broken lately: not for {held_s:.0f} s"
            )
            return
        why = f"its promise had not held for {now_s - broken.since_s:.0f} s ({broken.reason})"
        if self._applier.begin_moves(decision, [asked], {(job.id, task): allocation.id}, why):
            log.info("%s moves to %s: %s", allocation.id, site_id, why)
            self._holds.broke(job.id, task.group, allocation.site_id, now_s)
        else:
            broken.obstacle = "what was planned for it does not fit any more"

    def _watched(self) -> Iterator[tuple[Job, Allocation]]:
        """The running tasks of services with a promise that is kept or broken. Whether one could move is
        asked of those alone whose promise is broken: it is the dearer question, and they are few.
        """
        for job, allocation in self._table.live_allocations():
            if (
                allocation.state != job_pb2.ALLOCATION_STATE_RUNNING
                or job.spec.kind != job_pb2.JOB_KIND_SERVICE
            ):
                continue
            group = group_of(job, allocation)
            is_hard = group.HasField("latency_slo") and not group.latency_slo.soft_microcny_per_ms_hour
            ceilings = job.spec.pue_max_permille or job.spec.rent_max_microcny_per_hour
            if (is_hard or group.group_latencies or ceilings) and self._fleet.is_reachable(
                allocation.site_id
            ):
                yield job, allocation

    async def replan_if_changed(self) -> None:
        """Look at the whole fleet when what sites cost has changed for good."""
        now_s, costs = self._clock.monotonic_s(), self._costs()
        # A site that has just come, or come back, is no change: what waits is placed there anyway.
        for site_id, figures in costs.items():
            self._planned_with.setdefault(site_id, figures)
        if not any(_differ(self._planned_with[site_id], figures) for site_id, figures in costs.items()):
            self._changed_s = None
            return
        self._changed_s = self._changed_s if self._changed_s is not None else now_s
        if now_s - self._changed_s >= SETTLED_AFTER_S and now_s - self._replanned_s >= REPLAN_EVERY_S:
            self._planned_with.update(costs)
            self._changed_s, self._replanned_s = None, now_s
            await self._reoptimisation.optimize(self._reoptimisation.limits, dry_run=False, by_itself=True)

    def _costs(self) -> Mapping[str, Sequence[int]]:
        now_ms = self._clock.now().ToMilliseconds()
        return {
            site.id: (
                site.pue.marginal_permille,
                site.prices.cpu_core_hour_microcny,
                site.prices.memory_gib_hour_microcny,
                site.prices.egress_gib_microcny,
                *rates_over(site, now_ms, now_ms),
            )
            for site in self._fleet.all_sites()
            if self._fleet.is_reachable(site.id)
        }


def _differ(before: Sequence[int], now: Sequence[int]) -> bool:
    pue_before, *prices_before = before
    pue_now, *prices_now = now
    return abs(pue_now - pue_before) >= PUE_CHANGE_PERMILLE or any(
        abs(new - old) * 1000 >= PRICE_CHANGE_PERMILLE * max(old, 1)
        for old, new in zip(prices_before, prices_now, strict=True)
        if old != new
    )
