"""When a task must end because no more of its time is paid for."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from mumian_agent.runtime import contact
from mumian_agent.runtime.task import Task
from mumian_agent.runtime.time_limit import TimeLimit

_FILE = "funded_ms"


def extend(log_dir: Path, funded_ms: int) -> None:
    """Note that so much of a task's time is paid for.

    The agent writes it and the task's supervisor reads it: the task ends in time though the agent be dead.
    """
    if funded_ms > _noted_ms(log_dir):
        log_dir.mkdir(parents=True, exist_ok=True)
        scratch = log_dir / f"{_FILE}.new"
        scratch.write_text(str(funded_ms))
        scratch.replace(log_dir / _FILE)


def _noted_ms(log_dir: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int((log_dir / _FILE).read_text())
    return 0


class PaidTime(TimeLimit):
    """The task's `funded_ms`, counted from its start by a clock that nobody sets.

    What it has run before, under a runner that was lost, counts by the wall clock, as it is charged.
    """

    def __init__(self, task: Task) -> None:
        self._first_ms = task.run.allocation.funding.funded_ms
        super().__init__(min(task.stop_grace_s, self._first_ms / 2000), is_set=self._first_ms > 0)
        self._log_dir = Path(task.log_dir)
        before_ns = max(0, time.time_ns() - task.start_unix_ns) if task.start_unix_ns else 0
        self._begun_ns = contact.now_ns() - before_ns

    @property
    def reason(self) -> str:
        """What the task's tenant is told."""
        return (
            f"stopped at the end of the {self._funded_ms() / 60_000:.4g} min that its budget pays for; "
            "it goes on once there is money"
        )

    def _left_s(self) -> float:
        run_s = (contact.now_ns() - self._begun_ns) / 1e9
        return self._funded_ms() / 1000 - run_s

    def _funded_ms(self) -> int:
        return max(self._first_ms, _noted_ms(self._log_dir))
