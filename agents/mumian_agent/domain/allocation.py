"""The life of an allocation on its node: names of its states, and when a task that ended is started again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from mumian.agent.v1.agent_pb2 import AllocationStatus, RunAllocation
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import JOB_KIND_SERVICE

TERMINAL_STATES = frozenset(
    {
        job_pb2.ALLOCATION_STATE_SUCCEEDED,
        job_pb2.ALLOCATION_STATE_FAILED,
        job_pb2.ALLOCATION_STATE_CANCELLED,
    }
)
_SERVICE_RESTARTS = 10
_STABLE_AFTER_S = 60.0
_BACKOFF_FIRST_S, _BACKOFF_LAST_S = 0.1, 10.0


class AllocationKey(NamedTuple):
    """What commands are idempotent by."""

    allocation_id: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.allocation_id}@{self.attempt}"


def key_of(run: RunAllocation) -> AllocationKey:
    """The key of what a command is to start."""
    return AllocationKey(run.allocation.id, run.allocation.attempt)


def is_terminal(status: AllocationStatus) -> bool:
    """Whether the allocation has ended; from here on its status never changes."""
    return status.state in TERMINAL_STATES


@dataclass(slots=True)
class RestartPolicy:
    """Decides after each end of a task whether it is started again, and how long to wait before."""

    max_restarts: int
    is_service: bool
    restart_count: int = 0
    _failures_in_a_row: int = field(default=0)

    @classmethod
    def of(cls, run: RunAllocation, restart_count: int = 0) -> RestartPolicy:
        """What the job's spec says, or its kind's default."""
        group, is_service = run.task_group, run.kind == JOB_KIND_SERVICE
        default = _SERVICE_RESTARTS if is_service else 0
        most = group.max_restarts if group.HasField("max_restarts") else default
        return cls(most, is_service, restart_count, restart_count)

    def wants_restart(self, exit_code: int) -> bool:
        """Whether an end with this status is one to restart after, were there restarts left."""
        return self.is_service or exit_code != 0

    def next_delay_s(self, up_s: float) -> float | None:
        """Count a restart after a run of `up_s` seconds; None when none is left."""
        if self.is_service and up_s >= _STABLE_AFTER_S:
            self._failures_in_a_row = 0
        if self._failures_in_a_row >= self.max_restarts:
            return None
        delay_s: float = min(_BACKOFF_FIRST_S * 2**self._failures_in_a_row, _BACKOFF_LAST_S)
        self._failures_in_a_row += 1
        self.restart_count += 1
        return delay_s
