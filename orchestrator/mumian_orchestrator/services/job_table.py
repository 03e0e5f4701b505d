"""All jobs: the working state that services change, and the published state that callers see."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mumian.api.v1.explanation_pb2 import Explanation
from mumian.api.v1.job_pb2 import Allocation, Job

from mumian_orchestrator.domain.job_state import derive, is_live
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.store import Write
from mumian_orchestrator.services.commit_log import CommitLog

_JOBS, _ALLOCATIONS, _REQUESTS = "jobs/", "allocations/", "requests/"


class JobTable:
    """Jobs by id. A change is made in memory and appended to the log at once; callers see it once durable."""

    def __init__(self, log: CommitLog, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._working: dict[str, Job] = {}
        self._published: dict[str, Job] = {}
        self._requests: dict[str, str] = {}
        self._watchers: dict[str, set[asyncio.Event]] = {}

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Fill the empty table from the store."""
        for key, value in stored.items():
            if key.startswith(_JOBS):
                job = Job.FromString(value)
                self._working[job.id] = job
            elif key.startswith(_REQUESTS):
                self._requests[key.removeprefix(_REQUESTS)] = value.decode()
        for key, value in sorted(stored.items()):
            if key.startswith(_ALLOCATIONS):
                allocation = Allocation.FromString(value)
                self._working[allocation.job_id].allocations.append(allocation)
        for job in self._working.values():
            job.allocations.sort(key=lambda a: (a.create_time.ToNanoseconds(), a.task_group, a.task_index))
            self._publish(_copy(job))

    # What callers see.

    def published(self, job_id: str) -> Job | None:
        """The newest durable state of a job; not to be changed."""
        return self._published.get(job_id)

    def all_published(self) -> Iterable[Job]:
        """The newest durable state of every job, oldest first."""
        return self._published.values()

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

    def live_allocations(self) -> Iterator[tuple[Job, Allocation]]:
        """Every allocation that holds resources, with its job."""
        for job in self._working.values():
            for allocation in job.allocations:
                if is_live(allocation):
                    yield job, allocation

    def request(self, key: str) -> str | None:
        """What `create` remembered under this request key."""
        return self._requests.get(key)

    def create(self, job: Job, request_key: str, request_value: str) -> asyncio.Future[None]:
        """Add a job with its idempotency key, both or none."""
        durable = self._append(job, (), [Write(_REQUESTS + request_key, request_value.encode())])
        self._working[job.id] = job
        self._requests[request_key] = request_value
        return durable

    def commit(self, job: Job, changed: Sequence[Allocation] = ()) -> asyncio.Future[None]:
        """Make a changed working job durable, with those of its allocations that changed."""
        return self._append(job, changed, [])

    def publish_explanations(self, job: Job, explanations: Sequence[Explanation]) -> None:
        """Show newer reasons of a waiting job. Found again after a failover, so nothing is written."""
        del job.explanations[:]
        job.explanations.extend(explanations)
        _, job.state_message = derive(job)
        published = self._published.get(job.id)
        if published is not None:
            newer = _copy(published)
            del newer.explanations[:]
            newer.explanations.extend(explanations)
            _, newer.state_message = derive(newer)
            self._publish(newer)

    def _append(
        self, job: Job, changed: Sequence[Allocation], extra: Sequence[Write]
    ) -> asyncio.Future[None]:
        job.state, job.state_message = derive(job)
        job.update_time.CopyFrom(self._clock.now())
        job.etag = str(int(job.etag or 0) + 1)
        snapshot = _copy(job)
        alone = _copy(job)
        del alone.allocations[:]
        writes = [Write(_JOBS + job.id, alone.SerializeToString()), *extra]
        writes += [Write(_ALLOCATIONS + a.id, a.SerializeToString()) for a in changed]
        done = self._log.append(writes)
        done.add_done_callback(lambda future: None if future.exception() else self._publish(snapshot))
        return done

    def _publish(self, job: Job) -> None:
        self._published[job.id] = job
        for event in self._watchers.get(job.id, ()):
            event.set()


def _copy(job: Job) -> Job:
    copy = Job()
    copy.CopyFrom(job)
    return copy
