"""A job's event log: replaying it gives the stored job, whatever happened and however much was left out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from mumian.api.v1 import job_event_pb2, job_pb2
from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian_orchestrator.domain.job_events import replay, without
from mumian_orchestrator.domain.job_spec import normalise
from mumian_orchestrator.domain.job_state import submitted
from mumian_orchestrator.ports.store import LOG, Write
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.job_table import JobTable, event_prefix
from mumian_orchestrator.services.money.ledger_book import LedgerBook

from tests.orchestrator.tenant import spec_of

KEPT = 5
TASKS = 4
STATES = [
    job_pb2.ALLOCATION_STATE_STARTING,
    job_pb2.ALLOCATION_STATE_RUNNING,
    job_pb2.ALLOCATION_STATE_SUCCEEDED,
    job_pb2.ALLOCATION_STATE_FAILED,
    job_pb2.ALLOCATION_STATE_CANCELLED,
]


class ManualClock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.s = 1_000_000

    def now(self) -> Timestamp:
        return Timestamp(seconds=self.s)

    def monotonic_s(self) -> float:
        return self.s


class Entries:
    """A store that takes every commit at once."""

    is_full = False

    def __init__(self) -> None:
        self.all: dict[str, bytes] = {}

    async def commit(self, writes: Sequence[Write]) -> int:
        for write in writes:
            if write.value is None:
                self.all.pop(write.key, None)
            else:
                self.all[write.key] = write.value
        return 0


class Changes:
    """Changes of one job, as the services make them."""

    def __init__(self, kept: int = KEPT) -> None:
        self.store, self.clock = Entries(), ManualClock()
        self.log = CommitLog(self.store)
        self.table = JobTable(self.log, self.clock, LedgerBook(self.clock), events_kept=lambda _: kept)
        spec = normalise(spec_of("j", count=TASKS), [])
        self.job = submitted("acme", spec, b"digest", self.clock.now())
        self.job.id = "j"
        self.table.create([self.job])

    def place(self, index: int) -> None:
        number = len(self.job.allocations)
        self.job.allocations.add(
            id=f"j.main.{index}.{number}",
            job_id="j",
            tenant_id="acme",
            task_group="main",
            task_index=index,
            attempt=1,
            site_id="gz",
            node_id="gz/n1",
            resources=self.job.spec.task_groups[0].resources,
            state=job_pb2.ALLOCATION_STATE_PENDING,
            create_time=self.clock.now(),
        )
        self.job.explanations.add(task_group="main", summary="here")
        self.table.commit(self.job, [self.job.allocations[-1]], job_event_pb2.JOB_EVENT_KIND_PLACED)

    def report(self, index: int, state: job_pb2.AllocationState.ValueType, message: str) -> None:
        for allocation in self.job.allocations[index : index + 1]:
            allocation.state, allocation.state_message = state, message
            self.table.commit(self.job, [allocation], job_event_pb2.JOB_EVENT_KIND_REPORTED)

    def cancel(self) -> None:
        self.job.cancel_requested = True
        self.table.commit(self.job, [], job_event_pb2.JOB_EVENT_KIND_CANCEL_REQUESTED)

    async def stored(self) -> tuple[Job, Sequence[JobEvent]]:
        """The job as a new leader would load it, and its events: those of its log, or the only one."""
        running = asyncio.create_task(self.log.run())
        await self.log.append([])
        running.cancel()
        loaded = JobTable(CommitLog(Entries()), self.clock, LedgerBook(self.clock))
        loaded.load({key: value for key, value in self.store.all.items() if not key.startswith(LOG)})
        job = loaded.get("j")
        assert job is not None
        keys = sorted(key for key in self.store.all if key.startswith(event_prefix("j")))
        events = [JobEvent.FromString(self.store.all[key]) for key in keys]
        first = loaded.first_event("j")
        assert (first is None) == bool(events)
        return job, [first] if first else events


change = st.one_of(
    st.tuples(st.just("place"), st.integers(0, TASKS - 1)),
    st.tuples(st.just("report"), st.integers(0, 5), st.sampled_from(STATES), st.sampled_from(["", "why"])),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("tick")),
)


@settings(max_examples=200)
@given(st.lists(change, max_size=30))
def test_the_newest_events_replay_to_the_stored_job(changes: list[tuple[str, ...]]) -> None:
    async def run() -> None:
        made = Changes()
        for name, *arguments in changes:
            if name == "tick":
                made.clock.s += 1
            else:
                getattr(made, name)(*arguments)
        job, events = await made.stored()
        assert len(events) == min(int(job.etag), KEPT)
        assert [event.sequence for event in events] == list(
            range(int(job.etag) - len(events) + 1, int(job.etag) + 1)
        )
        assert replay(events) == without(job, "explanations")

    asyncio.run(run())


async def test_an_event_says_what_changed_and_no_more_than_it_must() -> None:
    made = Changes(kept=10_000)
    made.place(0)
    made.report(0, job_pb2.ALLOCATION_STATE_RUNNING, "")
    _, [submitted, placed, running] = await made.stored()
    assert (submitted.kind, submitted.job.spec.name) == (job_event_pb2.JOB_EVENT_KIND_SUBMITTED, "j")
    assert placed.changed_allocation_ids == ["j.main.0.0"]
    [allocation] = running.job.allocations
    assert allocation == Allocation(id="j.main.0.0", attempt=1, state=job_pb2.ALLOCATION_STATE_RUNNING)
    assert not running.job.HasField("spec")


async def test_a_submission_is_one_write_and_its_event_comes_with_the_next() -> None:
    waiting, cancelled = Changes(), Changes()
    _, [submitted] = await waiting.stored()
    assert list(waiting.store.all) == ["jobs/j"]
    cancelled.cancel()
    _, [first, second] = await cancelled.stored()
    assert first == submitted
    assert second.kind == job_event_pb2.JOB_EVENT_KIND_CANCEL_REQUESTED


async def test_a_job_that_has_ended_stays_as_it_ended() -> None:
    made = Changes()
    for index in range(TASKS):
        made.place(index)
        made.report(index, job_pb2.ALLOCATION_STATE_SUCCEEDED, "")
    assert made.job.state == job_pb2.JOB_STATE_SUCCEEDED
    made.cancel()
    job, _ = await made.stored()
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED
