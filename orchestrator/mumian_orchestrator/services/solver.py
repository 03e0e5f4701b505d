"""Asks the engine where tasks should go, and goes on without it when it fails."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from mumian_orchestrator.domain.decision import Decision, PendingJob
from mumian_orchestrator.ports.engine import Engine, EnginePanickedError, EngineRefusedError
from mumian_orchestrator.services.first_fit import first_fit
from mumian_orchestrator.services.fleet import Fleet

log = logging.getLogger(__name__)


class Solver:
    """The engine with a deadline and a fallback. A plan that cannot hold is the verifier's to find; the jobs
    of such a plan are placed by the fallback the next time.
    """

    def __init__(self, engine: Engine, fleet: Fleet, deadline_s: float) -> None:
        self._engine, self._fleet, self._deadline_s = engine, fleet, deadline_s
        self._overrunning: asyncio.Future[Decision] | None = None
        self._distrusted: set[str] = set()
        # By what went wrong: panic, overrun, error, infeasible, verifier.
        self.faults: Counter[str] = Counter()

    def distrust(self, job_ids: Iterable[str]) -> None:
        """The engine's plans for these jobs could not hold on the very state that they were made on."""
        for job_id in job_ids:
            log.error("the plan for job %s is infeasible on its own state; next by first fit", job_id)
            self.faults["infeasible"] += 1
            self._distrusted.add(job_id)

    async def place(
        self, evaluation_id: str, jobs: Sequence[PendingJob], now_unix_s: int, *, may_evict: bool
    ) -> Decision:
        """Where the pending tasks would go.

        Raises:
            EngineRefusedError: one of the jobs is malformed.
        """
        by_engine = [job for job in jobs if job.job_id not in self._distrusted]
        by_first_fit = [job for job in jobs if job.job_id in self._distrusted]
        self._distrusted.difference_update(job.job_id for job in jobs)
        decision = Decision(evaluation_id, 0, [], {})
        if by_engine:
            answer = await self._ask(evaluation_id, by_engine, now_unix_s, may_evict)
            if answer is None:
                by_first_fit = list(jobs)
            else:
                decision = answer
        if by_first_fit:
            view, nodes = self._engine.view(), self._fleet.nodes()
            simple = await asyncio.to_thread(first_fit, view, nodes, evaluation_id, by_first_fit)
            decision = dataclasses.replace(
                decision,
                placements=[*decision.placements, *simple.placements],
                explanations={**decision.explanations, **simple.explanations},
            )
        return decision

    async def _ask(
        self, evaluation_id: str, jobs: Sequence[PendingJob], now_unix_s: int, may_evict: bool
    ) -> Decision | None:
        """The engine's answer; None when there is none to be had."""
        if self._overrunning is not None:
            return None
        asked = asyncio.ensure_future(
            self._engine.place(evaluation_id, jobs, now_unix_s, may_evict=may_evict)
        )
        try:
            await asyncio.wait({asked}, timeout=self._deadline_s)
        except asyncio.CancelledError:
            asked.cancel()
            raise
        if not asked.done():
            self._fault(
                "overrun", f"no plan within {self._deadline_s:.1f} s; going on by first fit until it ends"
            )
            # Its thread cannot be stopped; no second one is started beside it.
            self._overrunning = asked
            asked.add_done_callback(self._overrun_ended)
            return None
        try:
            return asked.result()
        except EnginePanickedError as error:
            self._fault("panic", str(error))
        except EngineRefusedError:
            raise
        except Exception:
            self._fault("error", "a defect around the engine", with_trace=True)
        return None

    def _overrun_ended(self, asked: asyncio.Future[Decision]) -> None:
        self._overrunning = None
        if not asked.cancelled():
            asked.exception()  # seen: what it says comes too late

    def _fault(self, kind: str, message: str, *, with_trace: bool = False) -> None:
        self.faults[kind] += 1
        log.error("solver fault (%s): %s", kind, message, exc_info=with_trace)
