"""All jobs: the working state that services change, and the published state that callers see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mumian.api.v1 import job_pb2
from mumian.api.v1.explanation_pb2 import Explanation
from mumian.api.v1.job_event_pb2 import JobEvent, JobEventKind
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian.api.v1.money_pb2 import Shortage

from mumian_orchestrator.domain import disconnect
from mumian_orchestrator.domain.errors import job_not_found
from mumian_orchestrator.domain.job_events import event_of, events_kept, first_event, in_order, without
from mumian_orchestrator.domain.job_state import (
    TERMINAL_JOB_STATES,
    derive,
    holds_room,
    is_live,
    is_set_aside,
    wants_placement,
)
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.store import COMMIT_WRITES_MAX, LOG, Write
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.holdings import Holdings
from mumian_orchestrator.services.money.ledger_book import LedgerBook

_JOBS, _ALLOCATIONS, _REQUESTS = "jobs/", "allocations/", "requests/"
# Jobs that one commit creates; the audit log's entry rides along.
JOBS_PER_COMMIT = COMMIT_WRITES_MAX - 2
# Beside them a commit writes the job, its new event and maybe its first, removes the event that is too old,
# and takes along a page of the ledger, its head, and a tenant's funds: budget, all pools of vouchers, its
# enterprises' shares.
ALLOCATIONS_PER_COMMIT = COMMIT_WRITES_MAX - 4 - 8


_HEADER: tuple[Any, ...] = tuple(field.name for field in Job.DESCRIPTOR.fields if field.name != "allocations")


def event_prefix(job_id: str) -> str:
    """What the keys of a job's events begin with; their order is that of the events."""
    return f"{LOG}{job_id}/"


def _event_key(job_id: str, sequence: int) -> str:
    return f"{event_prefix(job_id)}{sequence:012d}"


class JobTable:
    """Jobs by id. A change is made in memory and appended to the log at once; callers see it once durable.
    Each change has its event in the job's own log, and its entries in the ledger, in the same transaction;
    but the first event comes with the second, so that a submission is one write.
    """

    def __init__(
        self,
        log: CommitLog,
        clock: Clock,
        book: LedgerBook,
        events_kept: Callable[[Job], int] = events_kept,
    ) -> None:
        self._log, self._clock, self._book, self._events_kept = log, clock, book, events_kept
        self._working: dict[str, Job] = {}
        self._published: dict[str, Job] = {}
        self._by_request: dict[tuple[str, str], Job] = {}  # by tenant and request id
        self._older_requests: dict[str, str] = {}  # their keys, by job
        # Of each job that has one durable event: itself as it was stored first.
        self._first_records: dict[str, bytes] = {}
        self._watchers: dict[str, set[asyncio.Event]] = {}
        # Where each allocation stands in its published job.
        self._positions: dict[str, int] = {}
        # Those of the working jobs that are asked for all the time, so that nobody looks through all jobs.
        self._live: dict[str, dict[str, tuple[Job, Allocation]]] = {}  # by site, by allocation
        self._waiting: dict[str, Job] = {}
        self._ended: dict[str, Job] = {}
        self.holdings = Holdings()

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Fill the empty table from the store."""
        for key, value in stored.items():
            if key.startswith(_JOBS):
                job = Job.FromString(value)
                disconnect.fill(job.spec.on_disconnect, job.spec.kind)  # it may be older than the contract
                self._working[job.id] = job
                if job.etag == "1":
                    self._first_records[job.id] = value
        self._load_older_requests(stored)
        self._by_request.update(((job.tenant_id, job.request_id), job) for job in self._working.values())
        by_job: dict[str, list[Allocation]] = {}
        for key, value in stored.items():
            if key.startswith(_ALLOCATIONS):
                allocation = Allocation.FromString(value)
                by_job.setdefault(allocation.job_id, []).append(allocation)
        for job in sorted(self._working.values(), key=lambda job: job.update_time.ToNanoseconds()):
            job.allocations.extend(in_order(by_job.get(job.id, ())))
            self._index(job, job.allocations)
            self._positions.update((a.id, position) for position, a in enumerate(job.allocations))
            self._publish(_copy(job))

    def _load_older_requests(self, stored: Mapping[str, bytes]) -> None:
        """Jobs of before 2026-11-26 have what they are the only job of in another key."""
        for key, value in stored.items():
            if key.startswith(_REQUESTS):
                job_id, digest = value.decode().split()
                if job := self._working.get(job_id):
                    self._older_requests[job_id] = key
                    job.request_id = key.removeprefix(f"{_REQUESTS}{job.tenant_id}/")
                    job.spec_sha256 = bytes.fromhex(digest)

    # What callers see.

    def published(self, job_id: str) -> Job | None:
        """The newest durable state of a job: not to be changed, nor to be kept over an await."""
        return self._published.get(job_id)

    def all_published(self) -> Iterable[Job]:
        """The newest durable state of every job, oldest first."""
        return self._published.values()

    def named(self, tenant_id: str, wanted: str) -> Job:
        """The published job of a tenant by its id, or by its name: then the newest that has not ended.

        Raises:
            RequestRefusedError: JOB_NOT_FOUND.
        """
        by_id = self._published.get(wanted)
        if by_id is not None and by_id.tenant_id == tenant_id:
            return by_id
        of_name = (
            job
            for job in self._published.values()
            if job.spec.name == wanted and job.tenant_id == tenant_id and job.state not in TERMINAL_JOB_STATES
        )
        newest = max(of_name, key=lambda job: (job.create_time.ToNanoseconds(), job.id), default=None)
        if newest is None:
            raise job_not_found(wanted)
        return newest

    def first_event(self, job_id: str) -> JobEvent | None:
        """The event of a job that has no other which is durable; its log lacks it."""
        record = self._first_records.get(job_id)
        return None if record is None else first_event(record)

    def watch(self, job_id: str) -> asyncio.Event:
        """An event that is set whenever the job's published state changes; end with `unwatch`."""
        event = asyncio.Event()
        self._watchers.setdefault(job_id, set()).add(event)
        return event

    def unwatch(self, job_id: str, event: asyncio.Event) -> None:
        """Forget a watcher."""
        watchers = self._watchers.get(job_id, set())
        watchers.discard(event)
        if not watchers:
            self._watchers.pop(job_id, None)

    # What services work on.

    def get(self, job_id: str) -> Job | None:
        """The working state, to be changed only together with `commit`."""
        return self._working.get(job_id)

    def jobs(self) -> Iterable[Job]:
        """The working state of every job."""
        return self._working.values()

    def waiting(self) -> list[Job]:
        """The jobs some of whose tasks are still to be placed."""
        return list(self._waiting.values())

    def live_allocations(self, site_id: str = "") -> Iterator[tuple[Job, Allocation]]:
        """Every allocation that holds resources, of one site or of all, with its job."""
        sites = [self._live.get(site_id, {})] if site_id else list(self._live.values())
        for site in sites:
            yield from list(site.values())

    def live_allocation(self, site_id: str, allocation_id: str) -> tuple[Job, Allocation] | None:
        """An allocation that has not ended, with its job."""
        return self._live.get(site_id, {}).get(allocation_id)

    def unwanted_on(self, site_id: str) -> list[Allocation]:
        """What a site is to stop, as far as that is durable."""
        stopping = [(job, a) for job, a in self.live_allocations(site_id) if a.stop_requested]
        durable = {
            allocation.id
            for job_id in {job.id for job, _ in stopping}
            for allocation in (self._published[job_id].allocations if job_id in self._published else ())
            if allocation.stop_requested
        }
        return [allocation for _, allocation in stopping if allocation.id in durable]

    def wanted_on(self, site_id: str) -> Iterator[tuple[Job, Allocation]]:
        """What a site is to run, as far as that is durable, with its job."""
        wanted = [
            (job, allocation)
            for job, allocation in self.live_allocations(site_id)
            if not allocation.stop_requested
            and not is_set_aside(job, allocation)
            and job.state not in TERMINAL_JOB_STATES
        ]
        durable = {
            allocation.id
            for job_id in {job.id for job, _ in wanted}
            for allocation in (self._published[job_id].allocations if job_id in self._published else ())
        }
        yield from ((job, allocation) for job, allocation in wanted if allocation.id in durable)

    def ended(self) -> Iterator[Job]:
        """The jobs that have ended with all that was placed of them, those first that ended first."""
        for job in list(self._ended.values()):
            published = self._published.get(job.id)
            if published is not None and published.etag == job.etag:
                yield job

    @property
    def ended_count(self) -> int:
        """How many have ended."""
        return len(self._ended)

    def of_request(self, tenant_id: str, request_id: str) -> Job | None:
        """The working job that came of a request."""
        return self._by_request.get((tenant_id, request_id))

    def create(self, jobs: Sequence[Job]) -> asyncio.Future[None]:
        """Add jobs (at most JOBS_PER_COMMIT), as `submitted` makes them, all or none."""
        writes: list[Write] = []
        for job in jobs:
            record = job.SerializeToString()
            writes.append(Write(_JOBS + job.id, record))
            self._working[job.id] = self._waiting[job.id] = job
            self._by_request[job.tenant_id, job.request_id] = job
            self._first_records[job.id] = record
        shown = [_copy(job) for job in jobs]

        def publish() -> None:
            for job in shown:
                self._publish(job)

        return self._log.append(writes, publish)

    def put_away(self, job: Job, kept: Sequence[Write]) -> asyncio.Future[None]:
        """Forget an ended job for what is kept of it, both or none. Its request id is forgotten, too; until
        that is durable, callers see it as before.
        """
        del self._working[job.id], self._ended[job.id]
        writes = [*kept, Write(_JOBS + job.id, None)]
        writes += [
            Write(prefix, None, is_prefix=True)
            for prefix in (f"{_ALLOCATIONS}{job.id}.", event_prefix(job.id))
        ]
        self._by_request.pop((job.tenant_id, job.request_id), None)
        if older := self._older_requests.pop(job.id, None):
            writes.append(Write(older, None))
        return self._log.append(writes, lambda: self._unpublish(job))

    def commit(
        self,
        job: Job,
        changed: Sequence[Allocation],
        kind: JobEventKind.ValueType,
        reason: str = "",
    ) -> asyncio.Future[None]:
        """Make a changed working job durable, with those of its allocations that changed (at most
        ALLOCATIONS_PER_COMMIT) and an event of this kind.
        """
        header, writes = self._change(job, changed, kind, reason)
        copies = [without(allocation) for allocation in changed]
        # Whoever sees that it is durable sees it published, too.
        return self._log.append(writes, lambda: self._publish_change(header, copies))

    def all_durable(self) -> asyncio.Future[None]:
        """Done when every change up to now is durable."""
        return self._log.append([])

    def publish_meter(self, job: Job, allocation: Allocation) -> None:
        """Show an allocation's newest meter reading. It comes again and again, so nothing is written."""
        published = self._published.get(job.id)
        for shown in published.allocations if published else ():
            if shown.id == allocation.id:
                shown.it_energy_uj = allocation.it_energy_uj
                self._wake_watchers(job.id)

    def show(self, job: Job, allocations: Sequence[Allocation]) -> None:
        """Show allocations as they are now. Found again after a failover, so nothing is written."""
        changed = {allocation.id: without(allocation) for allocation in allocations}

        def apply(shown: Job) -> None:
            for allocation in shown.allocations:
                if allocation.id in changed:
                    allocation.CopyFrom(changed[allocation.id])

        self._show([(job, apply)])

    def publish_outlooks(self, outlooks: Iterable[tuple[Job, Sequence[Explanation]]]) -> None:
        """Show why jobs wait: the newest reasons, and what money they lack. Found again after a failover, so
        nothing is written.
        """
        self._show([(job, _outlook(job, explanations)) for job, explanations in outlooks])

    def publish_shortage(self, job: Job) -> None:
        """Show what money a job lacks. Found again after a failover, so nothing is written."""
        self._show([(job, _shortage(job))])

    def _show(self, news: Sequence[tuple[Job, Callable[[Job], None]]]) -> None:
        shown: list[tuple[str, str, Callable[[Job], None]]] = []
        for job, apply in news:
            _, job.state_message = derive(job)
            shown.append((job.id, job.state_message, apply))

        def publish() -> None:
            for job_id, state_message, apply in shown:
                published = self._published.get(job_id)
                if published is not None:
                    apply(published)
                    published.state_message = state_message
                    self._publish(published)

        # Behind what is still to be stored, which would be shown over it later.
        self._log.append([], publish)

    def _change(
        self, job: Job, changed: Sequence[Allocation], kind: JobEventKind.ValueType, reason: str
    ) -> tuple[Job, list[Write]]:
        """The job without its allocations as it is after a change, and what makes that durable."""
        if job.state not in TERMINAL_JOB_STATES:
            job.state, job.state_message = derive(job)
        self._index(job, changed)
        ledger_writes = self._book.writes(changed)  # before the copies: it numbers the receipts
        job.update_time.CopyFrom(self._clock.now())
        job.etag = str(int(job.etag or 0) + 1)
        header = without(job, "allocations")
        writes = [Write(_JOBS + job.id, header.SerializeToString())]
        writes += [Write(_ALLOCATIONS + a.id, a.SerializeToString()) for a in changed]
        writes += self._event_writes(job, changed, kind, reason)
        writes += ledger_writes
        return header, writes

    def _publish_change(self, header: Job, changed: Sequence[Allocation]) -> None:
        """Publish what a commit has made durable: of a large job it changes little."""
        self._first_records.pop(header.id, None)
        job = self._published.get(header.id)
        if job is None:
            job = Job()
        for field in _HEADER:
            job.ClearField(field)
        job.MergeFrom(header)
        for allocation in changed:
            position = self._positions.setdefault(allocation.id, len(job.allocations))
            if position == len(job.allocations):
                job.allocations.add()
            job.allocations[position].CopyFrom(allocation)
        self._publish(job)

    def _event_writes(
        self, job: Job, changed: Sequence[Allocation], kind: JobEventKind.ValueType, reason: str
    ) -> list[Write]:
        kept = self._events_kept(job)
        event = event_of(job, changed, kind, reason, kept)
        writes = [Write(_event_key(job.id, event.sequence), event.SerializeToString())]
        if event.sequence == 2:
            first = first_event(self._first_records[job.id])
            writes.append(Write(_event_key(job.id, 1), first.SerializeToString()))
        if event.sequence > kept:
            writes.append(Write(_event_key(job.id, event.sequence - kept), None))
        return writes

    def _index(self, job: Job, changed: Iterable[Allocation]) -> None:
        for allocation in changed:
            site = self._live.setdefault(allocation.site_id, {})
            if is_live(allocation):
                site[allocation.id] = (job, allocation)
            else:
                site.pop(allocation.id, None)
            if holds_room(allocation):
                self.holdings.count(job, allocation)
            else:
                self.holdings.forget(allocation.id)
        if job.state == job_pb2.JOB_STATE_PENDING and wants_placement(job):
            self._waiting[job.id] = job
        else:
            self._waiting.pop(job.id, None)
        if job.state in TERMINAL_JOB_STATES and not any(is_live(a) for a in job.allocations):
            self._ended.setdefault(job.id, job)

    def _unpublish(self, job: Job) -> None:
        self._published.pop(job.id, None)
        for allocation in job.allocations:
            self._positions.pop(allocation.id, None)
        self._wake_watchers(job.id)

    def _publish(self, job: Job) -> None:
        self._published[job.id] = job
        self._wake_watchers(job.id)

    def _wake_watchers(self, job_id: str) -> None:
        for event in self._watchers.get(job_id, ()):
            event.set()


def _outlook(job: Job, explanations: Sequence[Explanation]) -> Callable[[Job], None]:
    del job.explanations[:]
    job.explanations.extend(explanations)
    apply_shortage = _shortage(job)

    def apply(shown: Job) -> None:
        del shown.explanations[:]
        shown.explanations.extend(explanations)
        apply_shortage(shown)

    return apply


def _shortage(job: Job) -> Callable[[Job], None]:
    if not job.HasField("shortage"):
        return lambda shown: shown.ClearField("shortage")
    shortage = Shortage()
    shortage.CopyFrom(job.shortage)
    return lambda shown: shown.shortage.CopyFrom(shortage)


def _copy(job: Job) -> Job:
    copy = Job()
    copy.CopyFrom(job)
    return copy
