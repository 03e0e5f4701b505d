"""Defects that the simulation has to find: each leaves out one thing that keeps a promise."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from mumian_agent.agent.allocations import Allocations
from mumian_agent.domain.allocation import AllocationKey
from mumian_orchestrator.domain import disconnect
from mumian_orchestrator.domain.job_state import is_live
from mumian_orchestrator.ports.key_value import CreatedAt, ModifiedAt
from mumian_orchestrator.ports.store import Change, Write
from mumian_orchestrator.services import disconnections
from mumian_orchestrator.services.admission import Admission
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.durability import Durability
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.money.ledger_book import LedgerBook
from mumian_orchestrator.services.plan_applier import PlanApplier
from mumian_orchestrator.services.receipts import Receipts
from mumian_orchestrator.services.reconciler import Reconciler
from mumian_orchestrator.services.store.fenced import FencedStore
from mumian_orchestrator.services.store.reader import StoreReader


class _Through:
    """A store's client that drops conditions."""

    def __init__(self, kv: Any, dropped: tuple[type, ...]) -> None:
        self._kv, self._dropped = kv, dropped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kv, name)

    async def transact(self, conditions: Any, success: Any, failure: Any = ()) -> Any:
        kept = [each for each in conditions if not isinstance(each, self._dropped)]
        return await self._kv.transact(kept, success, failure)


def _without_conditions(*dropped: type) -> AbstractContextManager[Any]:
    """Commits that go through whatever the store says of the leader, or of the commit before."""
    commit = FencedStore.commit

    async def unfenced(self: FencedStore, writes: Sequence[Write]) -> int:
        kv = self._kv
        self._kv = _Through(kv, dropped)
        try:
            return await commit(self, writes)
        finally:
            self._kv = kv

    return mock.patch.object(FencedStore, "commit", unfenced)


def _no_fencing() -> AbstractContextManager[Any]:
    return _without_conditions(CreatedAt, ModifiedAt)


def _dispatch_before_commit() -> AbstractContextManager[Any]:
    async def dispatch(self: PlanApplier, durable: Any, job: Any, allocations: Any) -> None:
        for allocation in allocations:
            self._sessions.run(job, allocation)
        await durable

    return mock.patch.object(PlanApplier, "_dispatch", dispatch)


def _acknowledge_before_commit() -> AbstractContextManager[Any]:
    async def at_once(self: Durability, *futures: Any) -> None:
        return

    def published(self: JobTable, job_id: str) -> Any:
        return self._published.get(job_id) or self._working.get(job_id)

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(Durability, "wait", at_once))
    stack.enter_context(mock.patch.object(Durability, "wait_for_all", at_once))
    stack.enter_context(mock.patch.object(JobTable, "published", published))
    return stack


def _forget_requests() -> AbstractContextManager[Any]:
    return mock.patch.object(JobTable, "of_request", lambda self, tenant_id, request_id: None)


def _confirm_before_commit() -> AbstractContextManager[Any]:
    async def confirm(self: Reconciler, durable: Any, site_id: str, statuses: Any) -> None:
        for status in statuses:
            self._sessions.stored(site_id, status)
        await durable

    return mock.patch.object(Reconciler, "_confirm", confirm)


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

    def blind(method: Any) -> Any:
        def without(self: Fleet, *told: Any) -> None:
            with mock.patch.object(self._table, "live_allocations", lambda site_id="": iter(())):
                method(self, *told)

        return without

    stack = contextlib.ExitStack()
    for name in ("load", "set_nodes"):
        stack.enter_context(mock.patch.object(Fleet, name, blind(getattr(Fleet, name))))
    return stack


def _resume_nothing() -> AbstractContextManager[Any]:
    """A new leader does not finish what the old one had begun."""
    return mock.patch.object(Reconciler, "resume", lambda self: None)


def _change_what_has_ended() -> AbstractContextManager[Any]:
    """A late report on an end is taken for news."""
    return mock.patch("mumian_orchestrator.services.reconciler.is_live", lambda allocation: True)


def _skip_what_was_compacted() -> AbstractContextManager[Any]:
    """After a gap the listing is not told of."""

    async def relist(self: StoreReader, prefix: str, from_revision: int) -> Any:
        listing = await self._kv.list(self._data + prefix)
        return Change([]), listing.revision + 1

    return mock.patch.object(StoreReader, "_relist", relist)


def _show_all_tenants() -> AbstractContextManager[Any]:
    def published(self: Admission, tenant_id: str, job_id: str) -> Any:
        job = self._table.published(job_id)
        assert job is not None
        return job

    return mock.patch.object(Admission, "_published", published)


def _answer_from_the_past() -> AbstractContextManager[Any]:
    """A leader that has slept past its lease answers from memory."""
    return mock.patch.object(FencedStore, "lease_left_s", 1.0)


def _confirm_what_is_not_stored() -> AbstractContextManager[Any]:
    """An end that is told again counts as stored, whether it is or not."""

    def at_once(self: JobTable) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    return mock.patch.object(JobTable, "all_durable", at_once)


def _ledger_beside_the_commit() -> AbstractContextManager[Any]:
    """Money moves in a transaction of its own, right after that of its allocation."""
    commit = JobTable.commit

    def apart(self: JobTable, job: Any, changed: Any, *more: Any) -> asyncio.Future[None]:
        pages = self._book.writes(changed)
        with mock.patch.object(self._book, "writes", lambda changed: []):
            durable = commit(self, job, changed, *more)
        if pages:
            self._log.append(pages)
        return durable

    return mock.patch.object(JobTable, "commit", apart)


def _keep_what_is_left() -> AbstractContextManager[Any]:
    """What an ended task has not used is not given back."""
    return mock.patch.object(Receipts, "_charge", lambda self, allocation, parts: {})


def _forget_the_funds() -> AbstractContextManager[Any]:
    """A new leader does not know what was spent."""
    return mock.patch.object(LedgerBook, "load", lambda self, stored: None)


@dataclass(frozen=True, slots=True)
class Mutation:
    """A defect, and faults under which it does harm."""

    make: Callable[[], AbstractContextManager[Any]]
    shown_by: tuple[str, ...]


MUTATIONS: dict[str, Mutation] = {
    "no-fencing": Mutation(_no_fencing, ("sleep", "sleep", "store-lossy")),
    "commits-in-any-order": Mutation(
        lambda: _without_conditions(ModifiedAt), ("store-lossy", "store-lossy", "store-mute")
    ),
    "dispatch-before-commit": Mutation(
        _dispatch_before_commit, ("die-before-commit", "die-before-commit", "kill-leader")
    ),
    "acknowledge-before-commit": Mutation(
        _acknowledge_before_commit, ("die-before-commit", "store-away", "kill-all")
    ),
    "forget-requests": Mutation(_forget_requests, ("requests-twice", "tenant-cut")),
    "confirm-before-commit": Mutation(
        _confirm_before_commit, ("die-before-commit", "store-away", "kill-all")
    ),
    "reports-in-any-order": Mutation(
        _reports_in_any_order, ("reports-replayed", "reports-replayed", "node-down", "node-down")
    ),
    "run-again": Mutation(_run_again, ("kill-leader", "kill-agent")),
    "lose-at-once": Mutation(_lose_at_once, ("site-cut", "site-cut", "site-deaf")),
    "free-when-told-to-stop": Mutation(_free_when_told_to_stop, ("site-deaf",)),
    "book-nothing-after-takeover": Mutation(_book_nothing_after_takeover, ("kill-leader", "hand-over")),
    "resume-nothing": Mutation(_resume_nothing, ("die-before-commit",) * 5),
    "change-what-has-ended": Mutation(_change_what_has_ended, ("kill-leader", "reports-replayed")),
    "skip-what-was-compacted": Mutation(_skip_what_was_compacted, ("compaction",)),
    "show-all-tenants": Mutation(_show_all_tenants, ()),
    "answer-from-the-past": Mutation(_answer_from_the_past, ("sleep", "tenant-cut", "kill-all")),
    "confirm-what-is-not-stored": Mutation(
        _confirm_what_is_not_stored, ("sleep", "store-away", "kill-agent")
    ),
    "ledger-beside-the-commit": Mutation(
        _ledger_beside_the_commit, ("die-before-commit", "die-before-commit", "store-away", "kill-leader")
    ),
    "keep-what-is-left": Mutation(_keep_what_is_left, ()),
    "forget-the-funds": Mutation(_forget_the_funds, ("kill-leader",)),
}
