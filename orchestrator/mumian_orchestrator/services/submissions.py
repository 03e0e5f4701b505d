"""How jobs come to be: at most one of each request id, and durable before anybody is told."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mumian.api.v1 import error_pb2, job_pb2
from mumian.api.v1.job_pb2 import Job, JobSpec

from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.domain.job_spec import normalise
from mumian_orchestrator.domain.job_state import task_count
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.services.bundles import Bundles, names_bundles
from mumian_orchestrator.services.durability import Durability
from mumian_orchestrator.services.fair_queue import FairQueue
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import ALLOCATIONS_PER_COMMIT, JOBS_PER_COMMIT, JobTable, NewJob
from mumian_orchestrator.services.scheduler import Scheduler
from mumian_orchestrator.services.secrets import Secrets
from mumian_orchestrator.services.shares import Shares

REQUEST_ID_LENGTH_MAX = 64
SUBMISSIONS_MAX = 1000  # in one request
# What one turn of the event loop takes up, and one commit stores: each spec twice, in its job and event.
PART_JOBS, _PART_SPEC_BYTES = min(32, JOBS_PER_COMMIT), 256 * 1024


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that a tenant wants, under an id that it has made for it."""

    request_id: str
    spec: JobSpec


class _Part:
    """Jobs that are to be created together."""

    def __init__(self) -> None:
        self.created: dict[str, NewJob] = {}  # by request key
        self.job_ids: dict[str, None] = {}
        self.normal_forms: dict[str, JobSpec] = {}  # by digest: of many jobs that differ in nothing


class Submissions:
    """Takes up jobs in their tenants' turns.

    Args:
        turns: in which everything that changes something waits.
    """

    def __init__(
        self,
        table: JobTable,
        fleet: Fleet,
        scheduler: Scheduler,
        bundles: Bundles,
        secrets: Secrets,
        shares: Shares,
        clock: Clock,
        turns: FairQueue,
        durability: Durability,
    ) -> None:
        self._table, self._fleet, self._scheduler, self._clock = table, fleet, scheduler, clock
        self._bundles, self._secrets, self._shares = bundles, secrets, shares
        self._turns, self._durability = turns, durability
        self._in_flight: dict[str, asyncio.Future[None]] = {}

    async def store(
        self, tenant_id: str, wanted: Sequence[Submission]
    ) -> Sequence[str | RequestRefusedError]:
        """Store jobs durably, once for each request id: for each, in order, its job's id or its own refusal.

        Refusals: OVERLOADED, INVALID_FIELD, MESSAGE_TOO_LARGE, UNKNOWN_ZONE, SECRET_NOT_FOUND,
        REQUEST_ID_REUSED, STORE_UNAVAILABLE or STORE_FULL.
        """
        first, *others = _parts(wanted)
        if not others:
            return await self._in_turn(tenant_id, first)
        # All parts stand in line at once, so that one is taken up while another is on its way to the store.
        told = await asyncio.gather(*(self._in_turn(tenant_id, part) for part in [first, *others]))
        return [outcome for of_part in told for outcome in of_part]

    async def _in_turn(
        self, tenant_id: str, part: Sequence[Submission]
    ) -> Sequence[str | RequestRefusedError]:
        try:
            async with self._turns.turn(tenant_id, len(part)):
                return await self._store(tenant_id, part)
        except RequestRefusedError as refused:
            return [refused] * len(part)

    async def _store(self, tenant_id: str, part: Sequence[Submission]) -> Sequence[str | RequestRefusedError]:
        lacking = [await self._lacks(tenant_id, each) if names_bundles(each.spec) else None for each in part]
        # From here on nothing waits, so whatever another call takes up is either known here or comes later.
        new = _Part()
        outcomes = [
            lacks or self._take_up(tenant_id, each, new) for lacks, each in zip(lacking, part, strict=True)
        ]
        if new.created:
            durable = self._table.create(list(new.created.values()))
            self._in_flight.update(dict.fromkeys(new.created, durable))
            durable.add_done_callback(lambda done: self._landed(new.created, done))
            for job_id in new.job_ids:
                self._scheduler.evaluate(job_id)
        awaited = [self._in_flight.get(f"{tenant_id}/{each.request_id}") for each in part]
        late = await self._durability.wait_for_all({future for future in awaited if future is not None})
        for number, future in enumerate(awaited):
            if future is None or isinstance(outcomes[number], RequestRefusedError):
                continue
            if future.done():
                future.result()  # the term may be over
            elif late is not None:
                outcomes[number] = late
        return outcomes

    async def _lacks(self, tenant_id: str, wanted: Submission) -> RequestRefusedError | None:
        """Why a new job cannot be, for a bundle that is to be stored before it."""
        if self._table.request(f"{tenant_id}/{wanted.request_id}") is not None:
            return None
        try:
            await self._bundles.require(tenant_id, wanted.spec)
        except RequestRefusedError as refused:
            return refused
        return None

    def _take_up(self, tenant_id: str, wanted: Submission, new: _Part) -> str | RequestRefusedError:
        try:
            return self._job_of(tenant_id, wanted, new)
        except RequestRefusedError as refused:
            return refused

    def _job_of(self, tenant_id: str, wanted: Submission, new: _Part) -> str:
        """The id of the job that comes of a request id; one that is not there yet is added to the new."""
        request_id = wanted.request_id
        if not 0 < len(request_id) <= REQUEST_ID_LENGTH_MAX:
            length = len(request_id)
            advice = f"has {length} characters; make one of 1 to {REQUEST_ID_LENGTH_MAX} for each submission"
            raise invalid([FieldFault("request_id", advice)])
        key = f"{tenant_id}/{request_id}"
        digest = hashlib.sha256(wanted.spec.SerializeToString(deterministic=True)).hexdigest()
        if key in new.created:
            known_id, known_digest = new.created[key].job.id, new.created[key].digest
        elif (known := self._table.request(key)) is not None:
            known_id, known_digest = known.split()
        else:
            self._durability.refuse_when_full()
            self._secrets.require(tenant_id, wanted.spec)
            full = new.normal_forms.get(digest) or self.normalise(tenant_id, wanted.spec)
            new.normal_forms[digest] = full
            job_id, now = self._unused_id(full.name, new.job_ids), self._clock.now()
            job = Job(id=job_id, tenant_id=tenant_id, spec=full, create_time=now, version=1)
            new.created[key] = NewJob(job, key, digest)
            new.job_ids[job_id] = None
            return job_id
        if known_digest != digest:
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_REQUEST_ID_REUSED,
                f"request_id ({request_id}) was used for job {known_id} with another spec; use a new one",
                [FieldFault("request_id", "was used with another spec")],
            )
        return known_id

    def normalise(self, tenant_id: str, spec: JobSpec) -> JobSpec:
        """The spec with every default filled in, as far as the tenant may ask for it.

        Raises:
            RequestRefusedError: INVALID_FIELD, MESSAGE_TOO_LARGE or UNKNOWN_ZONE.
        """
        full = normalise(spec, self._fleet.zones.keys())
        priority_max = self._shares.rules.of(tenant_id).priority_max
        if full.priority > priority_max:
            advice = f"({full.priority}) must be at most {priority_max} for tenant {tenant_id}"
            raise invalid([FieldFault("priority", advice)])
        tasks = task_count(full)
        if full.kind == job_pb2.JOB_KIND_GANG and tasks > ALLOCATIONS_PER_COMMIT:
            advice = f"({tasks} tasks together) must be at most {ALLOCATIONS_PER_COMMIT} in a gang"
            raise invalid([FieldFault("task_groups", advice)])
        return full

    def _landed(self, keys: Iterable[str], done: asyncio.Future[None]) -> None:
        """Whoever repeats a request that was not stored is told so, for as long as this is asked."""
        if not done.cancelled() and done.exception() is None:
            for key in keys:
                self._in_flight.pop(key, None)

    def _unused_id(self, name: str, taken: Collection[str]) -> str:
        """Short enough to be typed, so one may be taken by chance: among 10,000 of a name, with 1.2 %."""
        while True:
            job_id = f"{name}-{secrets.token_hex(4)}"
            if self._table.get(job_id) is None and job_id not in taken:
                return job_id


def _parts(wanted: Sequence[Submission]) -> Iterator[Sequence[Submission]]:
    part: list[Submission] = []
    left_bytes = _PART_SPEC_BYTES
    for each in wanted:
        size_bytes = each.spec.ByteSize()
        if part and (len(part) == PART_JOBS or size_bytes > left_bytes):
            yield part
            part, left_bytes = [], _PART_SPEC_BYTES
        part.append(each)
        left_bytes -= size_bytes
    if part:
        yield part
