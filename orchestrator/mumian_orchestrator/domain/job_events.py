"""The log of a job: what one change adds to it, and how a job is made from it again."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import Message
from mumian.api.v1 import job_event_pb2
from mumian.api.v1.job_event_pb2 import JobEvent, JobEventKind
from mumian.api.v1.job_pb2 import Allocation, Job

from mumian_orchestrator.domain.job_state import task_count

AnyMessage = TypeVar("AnyMessage", bound=Message)

_KEPT_MIN, _KEPT_PER_TASK = 128, 8
# Up to this size copying all and clearing some is faster than going through the fields in Python.
_COPIED_WHOLE_BYTES = 8192
# What never changes of an allocation.
_FIXED = (
    "job_id",
    "tenant_id",
    "task_group",
    "task_index",
    "site_id",
    "node_id",
    "resources",
    "devices",
    "create_time",
)


def events_kept(job: Job) -> int:
    """How many of a job's newest events are kept."""
    return max(_KEPT_MIN, _KEPT_PER_TASK * task_count(job.spec))


def first_event(record: bytes) -> JobEvent:
    """The event of a job's submission, from the job as it was stored first."""
    event = JobEvent(sequence=1, kind=job_event_pb2.JOB_EVENT_KIND_SUBMITTED)
    event.job.MergeFromString(record)
    return event


def event_of(
    job: Job, changed: Sequence[Allocation], kind: JobEventKind.ValueType, reason: str, kept: int
) -> JobEvent:
    """The event of a change that has been made to a job; its sequence is the job's etag.

    Any `kept` events in a row repeat everything once: each allocation in a turn that its id decides, the
    spec in turn 0. So the newest `kept` events are always enough to make the job from them.
    """
    sequence = int(job.etag)
    event = JobEvent(sequence=sequence, kind=kind, reason=reason)
    turn = sequence % kept
    tells_spec = turn == 0 or kind == job_event_pb2.JOB_EVENT_KIND_UPDATED
    left_out = ("explanations", "allocations") if tells_spec else ("spec", "explanations", "allocations")
    copy_without(job, event.job, *left_out)
    if not job.allocations:
        return event
    event.changed_allocation_ids.extend(allocation.id for allocation in changed)
    is_new = kind == job_event_pb2.JOB_EVENT_KIND_PLACED
    repeated = {a.id: a for a in job.allocations if zlib.crc32(a.id.encode()) % kept == turn}
    event.job.allocations.extend(repeated.values())
    event.job.allocations.extend(
        allocation if is_new else without(allocation, *_FIXED)
        for allocation in changed
        if allocation.id not in repeated
    )
    return event


def replay(events: Iterable[JobEvent]) -> Job:
    """The job that a log, oldest event first, tells of; without its explanations."""
    job = Job()
    allocations: dict[str, Allocation] = {}
    for event in events:
        now = without(event.job, "allocations")
        if not now.HasField("spec") and job.HasField("spec"):
            now.spec.CopyFrom(job.spec)
        job = now
        for allocation in event.job.allocations:
            before = allocations.get(allocation.id)
            if not allocation.job_id and before is not None:
                allocation = _completed(allocation, before)
            allocations[allocation.id] = allocation
    job.allocations.extend(in_order(allocations.values()))
    return job


def in_order(allocations: Iterable[Allocation]) -> list[Allocation]:
    """Oldest first."""
    return sorted(
        allocations, key=lambda a: (a.create_time.ToNanoseconds(), a.task_group, a.task_index, a.id)
    )


def without(message: AnyMessage, *fields: str) -> AnyMessage:
    """A copy that lacks these fields."""
    copy = type(message)()
    copy_without(message, copy, *fields)
    return copy


def copy_without(message: AnyMessage, copy: AnyMessage, *fields: str) -> None:
    """Make an empty message the copy of another that lacks these fields."""
    if not fields or message.ByteSize() <= _COPIED_WHOLE_BYTES:
        copy.CopyFrom(message)
        for name in fields:
            copy.ClearField(name)
        return
    # Field by field: what is left out may be most of it.
    for field, value in message.ListFields():
        if field.name in fields:
            continue
        if isinstance(value, Message):
            getattr(copy, field.name).CopyFrom(value)
        elif hasattr(value, "MergeFrom"):  # a list or a map
            getattr(copy, field.name).MergeFrom(value)
        else:
            setattr(copy, field.name, value)


def _completed(allocation: Allocation, before: Allocation) -> Allocation:
    """What never changes, from before; the rest as it is now."""
    changing = [field.name for field in Allocation.DESCRIPTOR.fields if field.name not in _FIXED]
    whole = without(before, *changing)
    whole.MergeFrom(allocation)
    return whole
