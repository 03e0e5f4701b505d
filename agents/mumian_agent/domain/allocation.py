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
_DELAY_FIRST_MS, _DELAY_MAX_MS = 100, 10_000
_DOUBLINGS_MAX = 40


class AllocationKey(NamedTuple):
    """What commands are idempotent by."""

    allocation_id: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.allocation_id}@{self.attempt}"


def missing_secrets(run: RunAllocation) -> list[str]:
    """The secrets that the task wants in its environment and whose values are not here, by name."""
    wanted = run.task_group.command.secrets
    return sorted({name for variable, name in wanted.items() if variable not in run.secrets})


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
    delay_first_s: float = _DELAY_FIRST_MS / 1000
    delay_max_s: float = _DELAY_MAX_MS / 1000
    _failures_in_a_row: int = field(default=0)

    @classmethod
    def of(cls, run: RunAllocation, restart_count: int = 0) -> RestartPolicy:
        """What the job's spec says, or its kind's default."""
        group, is_service = run.task_group, run.kind == JOB_KIND_SERVICE
        default = _SERVICE_RESTARTS if is_service else 0
        most = group.max_restarts if group.HasField("max_restarts") else default
        first_ms = group.restart_delay_ms or _DELAY_FIRST_MS
        most_ms = max(group.restart_delay_max_ms or _DELAY_MAX_MS, first_ms)
        return cls(most, is_service, restart_count, first_ms / 1000, most_ms / 1000, restart_count)

    def wants_restart(self, exit_code: int) -> bool:
        """Whether an end with this status is one to restart after, were there restarts left."""
        return self.is_service or exit_code != 0

    def next_delay_s(self, up_s: float) -> float | None:
        """Count a restart after a run of `up_s` seconds; None when none is left."""
        if self.is_service and up_s >= _STABLE_AFTER_S:
            self._failures_in_a_row = 0
        if self._failures_in_a_row >= self.max_restarts:
            return None
        # Bounded before it is raised to a power: a count of restarts may be large.
        doublings = min(self._failures_in_a_row, _DOUBLINGS_MAX)
        delay_s: float = min(self.delay_first_s * 2**doublings, self.delay_max_s)
        self._failures_in_a_row += 1
        self.restart_count += 1
        return delay_s
