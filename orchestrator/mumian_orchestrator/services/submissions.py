"""How jobs come to be: at most one of each request id, and durable before anybody is told."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from mumian.api.v1 import error_pb2, job_pb2
from mumian.api.v1.job_pb2 import Job, JobSpec

from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.domain.job_spec import normalise
from mumian_orchestrator.domain.job_state import submitted, task_count
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.services.bundles import Bundles, names_bundles
from mumian_orchestrator.services.durability import Durability
from mumian_orchestrator.services.fair_queue import FairQueue
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import ALLOCATIONS_PER_COMMIT, JOBS_PER_COMMIT, JobTable
from mumian_orchestrator.services.scheduler import Scheduler
from mumian_orchestrator.services.secrets import Secrets
from mumian_orchestrator.services.shares import Shares

REQUEST_ID_LENGTH_MAX = 64
SUBMISSIONS_MAX = 1000  # in one request
# What one turn of the event loop takes up.
PART_JOBS, _PART_SPEC_BYTES = min(32, JOBS_PER_COMMIT), 256 * 1024
# Of the end of an id; and how many are drawn at a time, for each draw asks the system.
_ID_BYTES, _IDS_DRAWN = 4, 256


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that a tenant wants, under an id that it has made for it."""

    request_id: str
    spec: JobSpec


class _Part:
    """Jobs that are to be created together."""

    def __init__(self, tenant_id: str, now: Timestamp) -> None:
        self.tenant_id, self.now = tenant_id, now
        self.created: dict[str, Job] = {}  # by request id
        self.job_ids: set[str] = set()
        # The first of each spec, by the spec's digest: many differ in nothing but their ids.
        self.alike: dict[bytes, Job] = {}


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
        # By tenant and request id.
        self._in_flight: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._drawn: list[str] = []  # ends of ids

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
        new = _Part(tenant_id, self._clock.now())
        outcomes = [lacks or self._take_up(each, new) for lacks, each in zip(lacking, part, strict=True)]
        requests = [(tenant_id, each.request_id) for each in part]
        if new.created:
            durable = self._table.create(list(new.created.values()))
            created = [(tenant_id, request_id) for request_id in new.created]
            self._in_flight.update(dict.fromkeys(created, durable))
            durable.add_done_callback(lambda done: self._landed(created, done))
            for job_id in new.job_ids:
                self._scheduler.evaluate(job_id)
        awaited = [self._in_flight.get(request) for request in requests]
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
        if self._table.of_request(tenant_id, wanted.request_id) is not None:
            return None
        try:
            await self._bundles.require(tenant_id, wanted.spec)
        except RequestRefusedError as refused:
            return refused
        return None

    def _take_up(self, wanted: Submission, new: _Part) -> str | RequestRefusedError:
        """The id of the job that comes of a request id; one that is not there yet is added to the new."""
        try:
            known = self._known(wanted.request_id, new)
            digest = hashlib.sha256(wanted.spec.SerializeToString(deterministic=True)).digest()
            if known is None:
                return self._add(wanted, digest, new)
        except RequestRefusedError as refused:
            return refused
        if known.spec_sha256 == digest:
            return known.id
        return RequestRefusedError(
            error_pb2.ERROR_REASON_REQUEST_ID_REUSED,
            f"request_id ({wanted.request_id}) was used for job {known.id} with another spec; use a new one",
            [FieldFault("request_id", "was used with another spec")],
        )

    def _known(self, request_id: str, new: _Part) -> Job | None:
        """The job that has come of a request id.

        Raises:
            RequestRefusedError: INVALID_FIELD.
        """
        if not 0 < len(request_id) <= REQUEST_ID_LENGTH_MAX:
            length = len(request_id)
            advice = f"has {length} characters; make one of 1 to {REQUEST_ID_LENGTH_MAX} for each submission"
            raise invalid([FieldFault("request_id", advice)])
        return new.created.get(request_id) or self._table.of_request(new.tenant_id, request_id)

    def _add(self, wanted: Submission, digest: bytes, new: _Part) -> str:
        """Add a job to the new ones.

        Raises:
            RequestRefusedError: as `store` says.
        """
        if (like := new.alike.get(digest)) is not None:
            job = Job()
            job.CopyFrom(like)
        else:
            self._durability.refuse_when_full()
            self._secrets.require(new.tenant_id, wanted.spec)
            full = self.normalise(new.tenant_id, wanted.spec)
            job = new.alike[digest] = submitted(new.tenant_id, full, digest, new.now)
        job.id, job.request_id = self._unused_id(job.spec.name, new.job_ids), wanted.request_id
        new.created[wanted.request_id] = job
        new.job_ids.add(job.id)
        return job.id

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

    def _landed(self, requests: Iterable[tuple[str, str]], done: asyncio.Future[None]) -> None:
        """Whoever repeats a request that was not stored is told so, for as long as this is asked."""
        if not done.cancelled() and done.exception() is None:
            for request in requests:
                self._in_flight.pop(request, None)

    def _unused_id(self, name: str, taken: Collection[str]) -> str:
        """Short enough to be typed, so one may be taken by chance: among 10,000 of a name, with 1.2 %."""
        while True:
            if not self._drawn:
                drawn = secrets.token_hex(_IDS_DRAWN * _ID_BYTES)
                self._drawn = [drawn[at : at + 2 * _ID_BYTES] for at in range(0, len(drawn), 2 * _ID_BYTES)]
            job_id = f"{name}-{self._drawn.pop()}"
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
