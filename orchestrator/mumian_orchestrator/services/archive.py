"""Ended jobs put away: out of memory and out of what a new leader loads, where they can still be read.

What is kept of a job is its events, packed; they give the job (see `domain/job_events.py`). Below the log,
where no takeover reads them:

    log/archive/TENANT/WHEN/JOB   the events; WHEN counts down to the job's creation: the newest come first
    log/archived/TENANT/JOB/      WHEN, for whoever knows the job's id only
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_pb2 import Job
from mumian.api.v1.job_service_pb2 import ListJobEventsResponse

from mumian_orchestrator.domain.job_events import replay
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.store import COMMIT_BYTES_MAX, LOG, TermStore, Write
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.job_table import JobTable, event_prefix

log = logging.getLogger(__name__)

# A request that is repeated has to find its job, so no job is put away before; unless less is configured.
REPEATED_WITHIN_S = 600
_LOOK_EVERY_S, _AT_ONCE = 1.0, 64
_FORGET_EVERY_S = 3600.0
_PAGE = 100
_DAY_S = 86_400
_NEWEST_FIRST = 1 << 63
_BYTES_MAX = COMMIT_BYTES_MAX - 10_000


@dataclass(frozen=True, slots=True)
class ArchivePolicy:
    """When jobs that have ended are put away: after a time, or before when more than so many have ended; and
    for how long they are kept then.
    """

    after_s: int = _DAY_S
    ended_max: int = 20_000
    keep_days: int = 90


def page_key(job: Job) -> str:
    """What lists of jobs are sorted by: newest first, each job once."""
    return f"{_when(job.create_time.ToNanoseconds())}/{job.id}"


def _when(unix_ns: int) -> str:
    return f"{_NEWEST_FIRST - unix_ns:020d}"


class Archive:
    """Puts jobs away, and finds them there."""

    def __init__(
        self, table: JobTable, store: TermStore, commit_log: CommitLog, clock: Clock, policy: ArchivePolicy
    ) -> None:
        self._table, self._store, self._commit_log, self._clock = table, store, commit_log, clock
        self._policy = policy
        self.count = 0  # put away in this term

    async def run(self) -> None:
        """Put away what is due, and forget what has been kept for long enough, until cancelled."""
        loop = asyncio.get_running_loop()
        forget_s = loop.time()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            found = list(self._due())
            due = iter(found)
            await asyncio.gather(*(self._put_all_away(due) for _ in range(min(len(found), _AT_ONCE))))
            if loop.time() >= forget_s:
                forget_s = loop.time() + _FORGET_EVERY_S
                await self._forget_old()

    # What callers read.

    async def find(self, tenant_id: str, job_id: str) -> Job | None:
        """A job of the tenant that was put away; without its explanations."""
        events = await self.events(tenant_id, job_id)
        return replay(events) if events else None

    async def events(self, tenant_id: str, job_id: str) -> Sequence[JobEvent]:
        """The events of such a job, oldest first; none: it is not there."""
        for when in await self._store.read_log(_pointer(tenant_id, job_id)):
            for packed in await self._store.read_log(f"{_entries(tenant_id)}{when.decode()}/{job_id}"):
                return _unpacked(packed)
        return ()

    async def page(self, tenant_id: str, after: str, count: int) -> tuple[Sequence[Job], bool]:
        """At most so many of the tenant's jobs, those behind a page key; whether there are more."""
        prefix = _entries(tenant_id)
        found = await self._store.read_log_after(prefix, prefix + after, min(count, _PAGE) + 1)
        jobs = []
        for _, packed in found[: min(count, _PAGE)]:
            jobs.append(replay(_unpacked(packed)))
            await asyncio.sleep(0)  # the event loop has other things to do
        return jobs, len(found) > min(count, _PAGE)

    # Inner works.

    def _due(self) -> Iterator[Job]:
        now_s = self._clock.now().seconds
        too_many = self._table.ended_count - self._policy.ended_max
        soonest_s = min(REPEATED_WITHIN_S, self._policy.after_s)
        for number, job in enumerate(self._table.ended()):
            age_s = now_s - job.update_time.seconds
            if age_s >= self._policy.after_s or (number < too_many and age_s >= soonest_s):
                yield job
            elif number >= too_many:
                return

    async def _put_all_away(self, due: Iterator[Job]) -> None:
        for job in due:
            await self._put_away(job)

    async def _put_away(self, job: Job) -> None:
        events = [JobEvent.FromString(each) for each in await self._store.read_log(event_prefix(job.id))]
        if self._table.get(job.id) is not job or not events or str(events[-1].sequence) != job.etag:
            return  # it has changed meanwhile: later
        packed = zlib.compress(ListJobEventsResponse(events=events).SerializeToString())
        if len(packed) > _BYTES_MAX:
            log.warning("job %s is not put away: its events take %d bytes", job.id, len(packed))
            return
        key = page_key(job)
        kept = [
            Write(_entries(job.tenant_id) + key, packed),
            Write(_pointer(job.tenant_id, job.id), key.split("/")[0].encode()),
        ]
        await self._table.put_away(job, kept)
        self.count += 1

    async def _forget_old(self) -> None:
        """Delete what was created too long ago; tenant after tenant, because the keys begin with them."""
        oldest_ns = self._clock.now().ToNanoseconds() - self._policy.keep_days * _DAY_S * 10**9
        behind = _ALL_ENTRIES
        while first := await self._store.read_log_after(_ALL_ENTRIES, behind, 1):
            tenant_id = first[0][0].removeprefix(_ALL_ENTRIES).split("/")[0]
            prefix = _entries(tenant_id)
            behind = f"{prefix[:-1]}0"  # behind all of this tenant's: "0" follows "/"
            while old := await self._store.read_log_after(prefix, prefix + _when(oldest_ns), _PAGE // 2):
                writes = [Write(key, None) for key, _ in old]
                writes += [Write(_pointer(tenant_id, key.rsplit("/", 1)[1]), None) for key, _ in old]
                await self._commit_log.append(writes)


_ALL_ENTRIES = f"{LOG}archive/"


def _entries(tenant_id: str) -> str:
    return f"{_ALL_ENTRIES}{tenant_id}/"


def _pointer(tenant_id: str, job_id: str) -> str:
    # The end of the key is the end of the id: no other id's key begins with it.
    return f"{LOG}archived/{tenant_id}/{job_id}/"


def _unpacked(packed: bytes) -> Sequence[JobEvent]:
    return ListJobEventsResponse.FromString(zlib.decompress(packed)).events
