"""What is asked of the engine and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mumian.api.v1.explanation_pb2 import CostBreakdown, Explanation, LatencyBreakdown
from mumian.api.v1.job_pb2 import JobSpec
from mumian.api.v1.resources_pb2 import DeviceShare


class TaskId(NamedTuple):
    """One task of a job. A tuple, because large jobs make very many."""

    group: str
    index: int  # type: ignore[assignment]  # in the place of a method of tuples


@dataclass(frozen=True, slots=True)
class PendingJob:
    """A job with the tasks that have no place."""

    job_id: str
    spec: JobSpec  # normalised
    tasks: tuple[TaskId, ...]
    created_unix_s: int  # its deadline counts from then
    is_guaranteed: bool = False  # it may take the place of what others have borrowed


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one task goes, and what it will cost and take there."""

    job_id: str
    task: TaskId
    site_id: str
    node_id: str
    devices: Sequence[DeviceShare]
    cost: CostBreakdown
    latency: LatencyBreakdown | None


@dataclass(frozen=True, slots=True)
class DeferredTask:
    """A task that had better wait, and until when."""

    job_id: str
    task: TaskId
    start_unix_s: int


@dataclass(frozen=True, slots=True)
class Eviction:
    """An allocation that has to make room for a task that is placed."""

    allocation_id: str
    by_job_id: str
    by_task: TaskId


@dataclass(frozen=True, slots=True)
class Decision:
    """The engine's answer: placements with what falls for them, tasks that wait, and the newest
    explanations by job.
    """

    evaluation_id: str
    generation: int
    placements: Sequence[Placement]
    explanations: Mapping[str, Sequence[Explanation]]
    deferred: Sequence[DeferredTask] = ()
    evictions: Sequence[Eviction] = ()
