"""Defects that the simulation has to find: each leaves out one thing that keeps a promise."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

from mumian_agent.agent.allocations import Allocations
from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime.identity import Identity
from mumian_orchestrator.domain import disconnect
from mumian_orchestrator.domain.job_state import is_live
from mumian_orchestrator.ports.key_value import CreatedAt, ModifiedAt
from mumian_orchestrator.ports.store import Write
from mumian_orchestrator.services import disconnections
from mumian_orchestrator.services.admission import Admission
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.plan_applier import PlanApplier
from mumian_orchestrator.services.reconciler import Reconciler
from mumian_orchestrator.services.store.fenced import FencedStore
from mumian_orchestrator.services.store.reader import StoreReader


def _without_conditions(kind: type) -> AbstractContextManager[Any]:
    """Commits that go through whatever the store says of the leader, or of the commit before."""
    commit = FencedStore.commit

    async def unfenced(self: FencedStore, writes: Sequence[Write]) -> int:
        kv = self._kv

        class Through:
            def __getattr__(self, name: str) -> Any:
                return getattr(kv, name)

            async def transact(self, conditions: Any, success: Any, failure: Any = ()) -> Any:
                return await kv.transact([c for c in conditions if not isinstance(c, kind)], success, failure)

        self._kv = Through()  # type: ignore[assignment]
        try:
            return await commit(self, writes)
        finally:
            self._kv = kv

    return mock.patch.object(FencedStore, "commit", unfenced)


@contextlib.contextmanager
def _no_fencing() -> Iterator[None]:
    with _without_conditions((CreatedAt, ModifiedAt)):  # type: ignore[arg-type]
        yield


def _dispatch_before_commit() -> AbstractContextManager[Any]:
    async def dispatch(self: PlanApplier, durable: Any, job: Any, allocations: Any) -> None:
        for allocation in allocations:
            self._sessions.run(job, allocation)
        await durable

    return mock.patch.object(PlanApplier, "_dispatch", dispatch)


def _acknowledge_before_commit() -> AbstractContextManager[Any]:
    async def durable(self: Admission, future: asyncio.Future[None]) -> None:
        return

    def published(self: JobTable, job_id: str) -> Any:
        return self._published.get(job_id) or self._working.get(job_id)

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(Admission, "_durable", durable))
    stack.enter_context(mock.patch.object(JobTable, "published", published))
    return stack


def _forget_requests() -> AbstractContextManager[Any]:
    return mock.patch.object(JobTable, "request", lambda self, key: None)


def _confirm_before_commit() -> AbstractContextManager[Any]:
    async def confirm(self: Reconciler, durable: Any, site_id: str, statuses: Any) -> None:
        for status in statuses:
            self._sessions.stored(site_id, status)
        await durable

    return mock.patch.object(Reconciler, "_confirm", confirm)


def _obey_old_leaders() -> AbstractContextManager[Any]:
    return mock.patch.object(Identity, "obeys", lambda self, term: True)


def _reports_in_any_order() -> AbstractContextManager[Any]:
    return mock.patch.object(AgentSessions, "is_current", lambda self, session, report: True)


def _run_again() -> AbstractContextManager[Any]:
    """The agent does not look whether it knows an attempt."""
    run = Allocations.run

    def again(self: Allocations, command: Any) -> None:
        self._entries.pop(AllocationKey(command.allocation.id, command.allocation.attempt), None)
        run(self, command)

    return mock.patch.object(Allocations, "run", again)


def _lose_at_once() -> AbstractContextManager[Any]:
    """At-most-once jobs lose their tasks as others do."""

    def lost_after_s(job: Any) -> float:
        return float(job.spec.on_disconnect.lost_after_s)

    stack = contextlib.ExitStack()
    for module in (disconnect, disconnections):
        stack.enter_context(mock.patch.object(module, "lost_after_s", lost_after_s))
    return stack


def _free_when_told_to_stop() -> AbstractContextManager[Any]:
    """Room counts as free before the task has ended."""
    stop_doomed = Reconciler._stop_doomed

    def stop(self: Reconciler, job: Any) -> None:
        stop_doomed(self, job)
        freed = [a.id for a in job.allocations if is_live(a) and a.stop_requested]
        if freed:
            self._engine.update(freed=freed)
            self._scheduler.evaluate_waiting()

    return mock.patch.object(Reconciler, "_stop_doomed", stop)


def _book_nothing_after_takeover() -> AbstractContextManager[Any]:
    """A new leader does not count what runs."""
    set_nodes = Fleet.set_nodes

    def without(self: Fleet, site_id: str, nodes: Any) -> None:
        with mock.patch.object(self._table, "live_allocations", lambda site_id="": iter(())):
            set_nodes(self, site_id, nodes)

    return mock.patch.object(Fleet, "set_nodes", without)


def _resume_nothing() -> AbstractContextManager[Any]:
    """A new leader does not finish what the old one had begun."""
    return mock.patch.object(Reconciler, "resume", lambda self: None)


def _change_what_has_ended() -> AbstractContextManager[Any]:
    """A late report on an end is taken for news."""
    return mock.patch("mumian_orchestrator.services.reconciler.is_live", lambda allocation: True)


def _watch_from_the_answer() -> AbstractContextManager[Any]:
    """After a gap the listing is not told of."""

    async def relist(self: StoreReader, prefix: str, from_revision: int) -> Any:
        from mumian_orchestrator.ports.store import Change

        listing = await self._kv.list(self._data + prefix)
        return Change([]), listing.revision + 1

    return mock.patch.object(StoreReader, "_relist", relist)


def _show_all_tenants() -> AbstractContextManager[Any]:
    def published(self: Admission, tenant_id: str, job_id: str) -> Any:
        job = self._table.published(job_id)
        assert job is not None
        return job

    return mock.patch.object(Admission, "_published", published)


MUTATIONS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no-fencing": _no_fencing,
    "commits-in-any-order": lambda: _without_conditions(ModifiedAt),
    "dispatch-before-commit": _dispatch_before_commit,
    "acknowledge-before-commit": _acknowledge_before_commit,
    "forget-requests": _forget_requests,
    "confirm-before-commit": _confirm_before_commit,
    "obey-old-leaders": _obey_old_leaders,
    "reports-in-any-order": _reports_in_any_order,
    "run-again": _run_again,
    "lose-at-once": _lose_at_once,
    "free-when-told-to-stop": _free_when_told_to_stop,
    "book-nothing-after-takeover": _book_nothing_after_takeover,
    "resume-nothing": _resume_nothing,
    "change-what-has-ended": _change_what_has_ended,
    "watch-from-the-answer": _watch_from_the_answer,
    "show-all-tenants": _show_all_tenants,
}
