"""A tenant's requests about its jobs: what is accepted, and what the answer is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TypeVar

from mumian.agent.v1.agent_pb2 import LogChunk
from mumian.api.v1 import error_pb2, job_pb2
from mumian.api.v1.explanation_pb2 import Explanation
from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_pb2 import Allocation, Job, JobSpec
from mumian.api.v1.money_pb2 import Quote
from mumian.api.v1.share_pb2 import Share

from mumian_orchestrator.domain.decision import Decision, PendingJob
from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid, job_not_found
from mumian_orchestrator.domain.job_state import TERMINAL_JOB_STATES, task_of, tasks_of, unplaced_tasks
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.engine import Engine
from mumian_orchestrator.ports.store import SupersededError, TermStore
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.archive import Archive, page_key
from mumian_orchestrator.services.bundles import Bundles
from mumian_orchestrator.services.disconnections import Disconnections
from mumian_orchestrator.services.drift import Drift
from mumian_orchestrator.services.durability import DURABLE_WITHIN_S, Durability, unavailable
from mumian_orchestrator.services.fair_queue import FairQueue
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import JobTable, event_prefix
from mumian_orchestrator.services.money.quotes import Quotes
from mumian_orchestrator.services.reconciler import Reconciler
from mumian_orchestrator.services.rollouts import Rollouts
from mumian_orchestrator.services.scheduler import Scheduler
from mumian_orchestrator.services.secrets import Secrets
from mumian_orchestrator.services.shares import Shares
from mumian_orchestrator.services.submissions import SUBMISSIONS_MAX, Submission, Submissions

# Under way together: enough to keep the store busy, and few, because whoever comes waits behind all of them;
# no more questions than leave the engine's threads to the scheduler.
CHANGES_AT_ONCE, QUESTIONS_AT_ONCE = 8, 2
# Of one tenant while others ask as well.
CHANGES_BESIDE_OTHERS, _QUESTIONS_BESIDE_OTHERS = 2, 1
WAITING_OF_TENANT = 1024
# Parts of the archive that one request reads, in search of jobs in some state.
_ARCHIVE_LOOKS = 10

Read = TypeVar("Read")


class Admission:
    """The tenant API without its transport. Every method is about one tenant and shows it nothing else."""

    def __init__(
        self,
        table: JobTable,
        fleet: Fleet,
        engine: Engine,
        scheduler: Scheduler,
        reconciler: Reconciler,
        sessions: AgentSessions,
        disconnections: Disconnections,
        bundles: Bundles,
        secrets: Secrets,
        rollouts: Rollouts,
        drift: Drift,
        store: TermStore,
        clock: Clock,
        shares: Shares,
        archive: Archive,
        quotes: Quotes,
    ) -> None:
        self._archive, self._quotes, self._secrets = archive, quotes, secrets
        self._disconnections, self._bundles, self._store = disconnections, bundles, store
        self._rollouts, self._drift = rollouts, drift
        self._table, self._fleet, self._engine = table, fleet, engine
        self._scheduler, self._reconciler, self._sessions = scheduler, reconciler, sessions
        self._clock, self._shares = clock, shares
        weights = {tenant_id: share.weight for tenant_id, share in shares.rules.tenants.items()}
        # Turns for what changes something, and for what makes the engine work.
        self.changes = FairQueue(
            "changes",
            CHANGES_AT_ONCE,
            4 * WAITING_OF_TENANT,
            WAITING_OF_TENANT,
            weights,
            CHANGES_BESIDE_OTHERS,
        )
        self.questions = FairQueue(
            "questions",
            QUESTIONS_AT_ONCE,
            WAITING_OF_TENANT,
            WAITING_OF_TENANT // 4,
            weights,
            _QUESTIONS_BESIDE_OTHERS,
        )
        self._durability = Durability(store)
        self._submissions = Submissions(
            table, fleet, scheduler, bundles, secrets, shares, clock, self.changes, self._durability
        )

    async def create(self, tenant_id: str, request_id: str, spec: JobSpec) -> Job:
        """Store a job durably, once for each request_id, when it is the tenant's turn.

        Raises:
            RequestRefusedError: OVERLOADED, INVALID_FIELD, MESSAGE_TOO_LARGE, UNKNOWN_ZONE, SECRET_NOT_FOUND,
                REQUEST_ID_REUSED, STORE_UNAVAILABLE or STORE_FULL.
        """
        [outcome] = await self.create_many(tenant_id, [Submission(request_id, spec)])
        if isinstance(outcome, RequestRefusedError):
            raise outcome
        return outcome

    async def create_many(
        self, tenant_id: str, wanted: Sequence[Submission]
    ) -> Sequence[Job | RequestRefusedError]:
        """The same for many: in their order, each one's job or its own refusal.

        Raises:
            RequestRefusedError: INVALID_FIELD; they are none, or too many.
        """
        if not 0 < len(wanted) <= SUBMISSIONS_MAX:
            advice = f"({len(wanted)}) must be 1 to {SUBMISSIONS_MAX} in one request; send several"
            raise invalid([FieldFault("submissions", advice)])
        return [
            outcome if isinstance(outcome, RequestRefusedError) else self._published(tenant_id, outcome)
            for outcome in await self._submissions.store(tenant_id, wanted)
        ]

    async def update(self, tenant_id: str, job: str, spec: JobSpec) -> Job:
        """Record durably that a service is to become what a newer spec says. The same again changes nothing.

        Args:
            job: its id, or its name: then the newest job of that name that has not ended.

        Raises:
            RequestRefusedError: JOB_NOT_FOUND, INVALID_FIELD, UNKNOWN_ZONE, SECRET_NOT_FOUND, OVERLOADED,
                STORE_UNAVAILABLE or STORE_FULL.
        """
        job_id = self._table.named(tenant_id, job).id
        async with self.changes.turn(tenant_id):
            self._durability.refuse_when_full()
            await self._bundles.require(tenant_id, spec)
            self._secrets.require(tenant_id, spec)
            full, working = self._submissions.normalise(tenant_id, spec), self._table.get(job_id)
            if working is None or working.state in TERMINAL_JOB_STATES or working.cancel_requested:
                advice = f"({job_id}) has ended, or is being stopped; submit the new one"
                raise invalid([FieldFault("job", advice)])
            # The same again may still be under way to the store.
            await self._durability.wait(self._rollouts.begin(working, full) or self._table.all_durable())
        return self._published(tenant_id, job_id)

    def get(self, tenant_id: str, job_id: str) -> Job:
        """One job of the tenant that is not put away.

        Raises:
            RequestRefusedError: JOB_NOT_FOUND.
        """
        return self._published(tenant_id, job_id)

    async def find(self, tenant_id: str, job_id: str) -> Job:
        """One job of the tenant, wherever it is.

        Raises:
            RequestRefusedError: JOB_NOT_FOUND or STORE_UNAVAILABLE.
        """
        if self._is_here(tenant_id, job_id):
            return self._published(tenant_id, job_id)
        job = await self._in_time(self._archive.find(tenant_id, job_id))
        # It may have been put away while it was looked for; or back, by a leader that was asked before.
        return job if job is not None else self._published(tenant_id, job_id)

    def list(self, tenant_id: str, states: Sequence[job_pb2.JobState.ValueType]) -> Sequence[Job]:
        """The tenant's jobs in these states (none: in all), newest first."""
        found = [
            job
            for job in self._table.all_published()
            if job.tenant_id == tenant_id and (not states or job.state in states)
        ]
        return sorted(found, key=page_key)

    async def page_of_all(
        self, tenant_id: str, states: Sequence[job_pb2.JobState.ValueType], after: str, count: int
    ) -> tuple[Sequence[Job], str]:
        """At most so many of the tenant's jobs, newest first, those that were put away among them, behind a
        page key; and the key behind which there may be more ("": there are none).

        Raises:
            RequestRefusedError: STORE_UNAVAILABLE.
        """
        put_away: list[Job] = []
        seen, is_more = after, True
        for _ in range(_ARCHIVE_LOOKS):
            part, is_more = await self._in_time(self._archive.page(tenant_id, seen, count + 1))
            seen = page_key(part[-1]) if part else seen
            put_away += [job for job in part if not states or job.state in states]
            if not is_more or len(put_away) > count:
                break
        # Those that are not put away were looked up last, so that none slips through on its way.
        found = {page_key(job): job for job in [*put_away, *self.list(tenant_id, states)]}
        keys = sorted(key for key in found if key > after and (key <= seen or not is_more))
        shown = keys[:count]
        behind = shown[-1] if len(keys) > count else seen if is_more else ""
        return [found[key] for key in shown], behind

    async def watch(self, tenant_id: str, job_id: str) -> AsyncIterator[Job]:
        """The job as it is, then at every change, until it is terminal. Quick changes are merged.

        Raises:
            RequestRefusedError: JOB_NOT_FOUND.
        """
        if not self._is_here(tenant_id, job_id):
            yield await self.find(tenant_id, job_id)
            return
        changed = self._table.watch(job_id)
        try:
            while True:
                changed.clear()
                job = await self.find(tenant_id, job_id)
                has_ended = job.state in TERMINAL_JOB_STATES
                yield job
                # Not `job.state`: it may have ended since, and whoever watches has not been told of it.
                if has_ended:
                    return
                await changed.wait()
        finally:
            self._table.unwatch(job_id, changed)

    async def cancel(self, tenant_id: str, job_id: str) -> Job:
        """Record durably that the job is to stop. A job that has ended stays as it ended.

        Raises:
            RequestRefusedError: JOB_NOT_FOUND, OVERLOADED or STORE_UNAVAILABLE.
        """
        told = await self.find(tenant_id, job_id)
        job = self._table.get(job_id)
        if job is not None and told.state not in TERMINAL_JOB_STATES and not told.cancel_requested:
            self._durability.refuse_when_full()
            async with self.changes.turn(tenant_id):
                # What is known here already may be stored only now, or never.
                is_known = job.cancel_requested or job.state in TERMINAL_JOB_STATES
                await self._durability.wait(
                    self._table.all_durable() if is_known else self._reconciler.cancel(job)
                )
        return await self.find(tenant_id, job_id)

    async def plan(self, tenant_id: str, spec: JobSpec) -> tuple[Decision, Quote]:
        """Where a job would go now, and what that would cost whom; reserves and stores nothing.

        Raises:
            RequestRefusedError: INVALID_FIELD, UNKNOWN_ZONE or OVERLOADED.
        """
        full = self._submissions.normalise(tenant_id, spec)
        now_unix_s = self._clock.now().seconds
        job = PendingJob(full.name, full, tuple(tasks_of(full)), created_unix_s=now_unix_s)
        async with self.questions.turn(tenant_id):
            decision = await self._engine.place("plan", [job], now_unix_s, may_evict=True)
        as_job = Job(id=full.name, tenant_id=tenant_id, spec=full)
        return decision, self._quotes.quote(as_job, decision.placements)

    async def explain(self, tenant_id: str, job_id: str) -> tuple[Sequence[Explanation], Sequence[str]]:
        """Why the job is where it is, or why it waits as things are now; and what its tasks on silent sites
        wait for, and whose promises do not hold, one sentence each.

        Raises:
            RequestRefusedError: JOB_NOT_FOUND.
        """
        job = await self.find(tenant_id, job_id)
        waiting, told = unplaced_tasks(job), [*self._disconnections.describe(job), *self._drift.describe(job)]
        if not waiting or job.state in TERMINAL_JOB_STATES:
            return job.explanations, told
        pending = PendingJob(job.id, job.spec, waiting, job.create_time.seconds)
        async with self.questions.turn(tenant_id):
            return await self._engine.explain(pending, self._clock.now().seconds), told

    async def events(self, tenant_id: str, job_id: str) -> Sequence[JobEvent]:
        """What has happened to a job, oldest first.

        Raises:
            RequestRefusedError: JOB_NOT_FOUND or STORE_UNAVAILABLE.
        """
        if self._is_here(tenant_id, job_id):
            first = self._table.first_event(job_id)
            stored = await self._in_time(self._store.read_log(event_prefix(job_id)))
            if stored:
                return [JobEvent.FromString(value) for value in stored]
            if first is not None:
                return [first]
        return await self._in_time(self._archive.events(tenant_id, job_id)) or self._no_events(
            tenant_id, job_id
        )

    async def read_logs(
        self, tenant_id: str, job_id: str, allocation_id: str, follow: bool, tail_bytes: int
    ) -> AsyncIterator[tuple[Allocation, LogChunk]]:
        """What one allocation has written; without an id, the newest one of the first task.

        Raises:
            RequestRefusedError: JOB_NOT_FOUND, ALLOCATION_NOT_FOUND or SITE_UNREACHABLE.
        """
        job = await self.find(tenant_id, job_id)
        chosen = (
            [a for a in job.allocations if a.id == allocation_id] if allocation_id else _of_first_task(job)
        )
        if not chosen:
            raise _no_allocation(job, allocation_id or "to read logs of")
        async for chunk in self._sessions.read_logs(chosen[-1], follow, tail_bytes):
            yield chosen[-1], chunk

    async def read_output(self, tenant_id: str, job_id: str, allocation_id: str, offset_bytes: int) -> bytes:
        """A piece of what a task has left; empty: there is no more.

        Raises:
            RequestRefusedError: JOB_NOT_FOUND, ALLOCATION_NOT_FOUND, OUTPUT_NOT_FOUND or SITE_UNREACHABLE.
        """
        job = await self.find(tenant_id, job_id)
        allocation = next((a for a in job.allocations if a.id == allocation_id), None)
        if allocation is None:
            raise _no_allocation(job, allocation_id)
        if not allocation.output_bytes:
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_OUTPUT_NOT_FOUND, f"{allocation_id} has left no outputs"
            )
        return await self._sessions.read_output(allocation, offset_bytes)

    def share(self, tenant_id: str) -> Share:
        """What the tenant holds, and the rules for it."""
        return self._shares.report(tenant_id)

    async def _in_time(self, read: Awaitable[Read]) -> Read:
        try:
            return await asyncio.wait_for(read, DURABLE_WITHIN_S)
        except TimeoutError:
            raise unavailable("not read") from None

    def _no_events(self, tenant_id: str, job_id: str) -> Sequence[JobEvent]:
        self._published(tenant_id, job_id)
        return ()

    def _is_here(self, tenant_id: str, job_id: str) -> bool:
        """Whether it is a job of the tenant, and not put away."""
        job = self._table.published(job_id)
        return job is not None and job.tenant_id == tenant_id

    def _published(self, tenant_id: str, job_id: str) -> Job:
        if self._store.lease_left_s <= 0:
            # It has slept, and another may have led meanwhile: what is known here is of the past.
            raise SupersededError("the lease has ended")
        job = self._table.published(job_id)
        if job is None or job.tenant_id != tenant_id:
            raise job_not_found(job_id)
        return job


def _of_first_task(job: Job) -> list[Allocation]:
    first = next(iter(tasks_of(job.spec)))
    return [a for a in job.allocations if task_of(a) == first and not a.takes_over_from]


def _no_allocation(job: Job, wanted: str) -> RequestRefusedError:
    known = ", ".join(a.id for a in job.allocations) or "none yet; the job waits for a place"
    return RequestRefusedError(
        error_pb2.ERROR_REASON_ALLOCATION_NOT_FOUND,
        f"job {job.id} has no allocation {wanted}; it has: {known}",
    )
