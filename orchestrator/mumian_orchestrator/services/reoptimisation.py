"""Looks at all jobs together, now and then or when asked, and moves services where that pays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mumian.api.v1.planning_pb2 import PlannedMove
from mumian.api.v1.planning_service_pb2 import OptimizeFleetResponse

from mumian_orchestrator.domain.arrangement import RunningTask, SearchLimits
from mumian_orchestrator.domain.decision import Decision, PendingJob, Placement
from mumian_orchestrator.domain.holds import Holds
from mumian_orchestrator.domain.job_state import task_of
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.engine import Engine, View
from mumian_orchestrator.services.arrangements import Arrangements, Best, Stock
from mumian_orchestrator.services.handovers import TAKES_OVER_WITHIN_S
from mumian_orchestrator.services.movers import Jobs, Mover, TakeOvers
from mumian_orchestrator.services.tasks import TaskSet

log = logging.getLogger(__name__)

_TICK_S = 1.0
# What has moved stays for so long, unless its promise is broken or somebody asks.
STAYS_S = 1800
_NO_ROOM_BESIDE = "there is no room for it beside what runs: something would have to stop first"
_HAS_PATIENCE = "its promise does not hold now: it moves when that has lasted for its patience"
_DOES_NOT_PAY = "without the moves that are held back, it would cost more than it saves"


@dataclass(frozen=True, slots=True)
class _Move:
    task: RunningTask
    to: Placement
    saves_microcny: int


class Reoptimisation:
    """Plans on a view beside the event loop; what it moves goes through the plan applier, checked anew.

    Make before break: a task's new allocation starts while the old one runs, and each wave of moves starts
    only when the one before has left its room.

    Args:
        limits: of runs that are not given others.
        interval_s: between two runs; 0: only when asked.
    """

    def __init__(
        self,
        table: Jobs,
        engine: Engine,
        arrangements: Arrangements,
        applier: Mover,
        handovers: TakeOvers,
        holds: Holds,
        clock: Clock,
        limits: SearchLimits,
        interval_s: int,
    ) -> None:
        self._table, self._engine, self._arrangements = table, engine, arrangements
        self._applier, self._handovers, self._clock = applier, handovers, clock
        self._holds = holds
        self.limits, self._interval_s = limits, interval_s
        self._next_s: float | None = None  # when the next run is due by itself
        self._background = TaskSet()
        # Waves of an older run start no more once there is a newer one.
        self._runs = 0

    async def run(self) -> None:
        """Check again and again, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self.check()
            except Exception:
                # Nobody depends on it, so a defect here must not end the term.
                log.exception("defect: the fleet was not optimised; nothing moves")

    async def check(self) -> None:
        """Give up moves that hang, and optimise when it is time; the first time that is a whole interval from
        the first check.
        """
        self._handovers.give_up_overdue()
        if not self._interval_s:
            return
        now_s = self._clock.monotonic_s()
        if self._next_s is None:
            self._next_s = now_s + self._interval_s
        elif now_s >= self._next_s:
            try:
                await self.optimize(self.limits, dry_run=False, by_itself=True)
            finally:
                self._next_s = self._clock.monotonic_s() + self._interval_s

    async def optimize(
        self, limits: SearchLimits, *, dry_run: bool, by_itself: bool = False
    ) -> OptimizeFleetResponse:
        """Find a better arrangement and, unless it is only to be shown, begin the moves to it.

        Args:
            by_itself: nobody has asked: what has moved lately stays, nothing goes back to where its promise
                was broken lately, and what is broken now has its job's patience (see drift).
        """
        view = self._engine.view()
        stock = self._arrangements.stock()
        now, _ = await self._arrangements.as_it_runs(view, stock)
        best = await self._arrangements.best(view, stock, limits)
        waves, held_back = self._waves(view, stock, best, by_itself)
        if waves and not dry_run:
            count = sum(len(wave) for wave in waves)
            log.info("%d services move in %d waves", count, len(waves))
            self._runs += 1
            self._background.start(self._carry_out(self._runs, waves, stock, best))
        return OptimizeFleetResponse(
            as_it_runs=now,
            found=best.arrangement,
            moves=[_told(move, reason) for move, reason in held_back]
            + [_told(move) for wave in waves for move in wave],
        )

    def _waves(
        self, view: View, stock: Stock, best: Best, by_itself: bool
    ) -> tuple[list[list[_Move]], list[tuple[_Move, str]]]:
        """The moves in an order in which each has room beside all that runs then, and those without one."""
        left: list[_Move] = []
        held_back: list[tuple[_Move, str]] = []
        for task in stock.running:
            to = best.solution.moved.get(task.allocation_id)
            if to is not None:
                stays = best.standing[task.allocation_id].cost.total_microcny_per_hour
                move = _Move(task, to, stays - to.cost.total_microcny_per_hour)
                is_broken = best.standing[task.allocation_id].broken is not None
                too_soon = (_HAS_PATIENCE if is_broken else self._too_soon(move)) if by_itself else ""
                if too_soon:
                    held_back.append((move, too_soon))
                else:
                    left.append(move)
        waves: list[list[_Move]] = []
        while left:
            fits = {
                (p.job_id, p.task) for p in view.verify(_decision(best, left), _jobs(stock, left)).placements
            }
            wave = [move for move in left if (move.task.job_id, move.task.task) in fits]
            if not wave:
                break
            waves.append(wave)
            left = [move for move in left if (move.task.job_id, move.task.task) not in fits]
            booked = []
            for move in wave:
                job = self._table.get(move.task.job_id)
                if job is not None:
                    booked.append((job, self._applier.successor(job, move.to, move.task.allocation_id)))
            view = view.changed(booked=booked, freed=[move.task.allocation_id for move in wave])
        held_back += [(move, _NO_ROOM_BESIDE) for move in left]
        if held_back and sum(move.saves_microcny for wave in waves for move in wave) <= 0:
            held_back += [(move, _DOES_NOT_PAY) for wave in waves for move in wave]
            waves = []
        return waves, held_back

    def _too_soon(self, move: _Move) -> str:
        """Why a task stays for now, though it would cost less elsewhere."""
        task, to = move.task, move.to
        held_s = self._holds.left_s(task.job_id, task.task.group, to.site_id, self._clock.monotonic_s())
        if held_s:
            return f"its promise was broken at {to.site_id} lately: not for {held_s:.0f} s"
        job = self._table.get(task.job_id)
        here = next((a for a in job.allocations if a.id == task.allocation_id), None) if job else None
        has_moved = job is not None and any(a.moved and task_of(a) == task.task for a in job.allocations)
        if here is not None and has_moved:
            here_s = self._clock.now().seconds - here.create_time.seconds
            if here_s < STAYS_S:
                return f"it has moved {here_s} s ago: not for {STAYS_S - here_s} s"
        return ""

    async def _carry_out(self, run: int, waves: Sequence[Sequence[_Move]], stock: Stock, best: Best) -> None:
        for wave in waves:
            if run != self._runs:
                return
            leaving = {(move.task.job_id, move.task.task): move.task.allocation_id for move in wave}
            begun = self._applier.begin_moves(_decision(best, wave), _jobs(stock, wave), leaving)
            if len(begun) < len(wave):
                log.info("%d of %d moves no longer fit; they are left out", len(wave) - len(begun), len(wave))
            try:
                async with asyncio.timeout(2 * TAKES_OVER_WITHIN_S):
                    await self._handovers.settled([allocation.id for allocation in begun])
            except TimeoutError:
                log.warning("moves hang; the rest of this run is left out")
                return


def _decision(best: Best, moves: Sequence[_Move]) -> Decision:
    return Decision(
        best.solution.evaluation_id, best.solution.generation, [move.to for move in moves], explanations={}
    )


def _jobs(stock: Stock, moves: Sequence[_Move]) -> list[PendingJob]:
    return [stock.jobs[job_id] for job_id in dict.fromkeys(move.task.job_id for move in moves)]


def _told(move: _Move, held_back: str = "") -> PlannedMove:
    return PlannedMove(
        allocation_id=move.task.allocation_id,
        job_id=move.task.job_id,
        from_node_id=move.task.node_id,
        to_node_id=move.to.node_id,
        saves_microcny_per_hour=move.saves_microcny,
        held_back=held_back,
    )
