"""The actor that runs one task at a time. It outlives the agent, and keeps what happened for the next one."""

from __future__ import annotations

import asyncio
import os

from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime.supervisor import Supervisor
from mumian_agent.runtime.task import Task, TaskView


class Runner:
    """A worker process of Ray with a supervisor in it. Every method may be called twice."""

    def __init__(self) -> None:
        self._task: Task | None = None
        self._supervisor: Supervisor | None = None
        self._running: asyncio.Task[None] | None = None

    async def ready(self) -> int:
        """Its pid, once it is there."""
        return os.getpid()

    async def run(self, task: Task) -> TaskView:
        """Begin a task; the same one again changes nothing.

        Raises:
            RuntimeError: another task has not ended yet.
        """
        if self._task is None or self._task.key != task.key:
            if self._running is not None and not self._running.done():
                raise RuntimeError(f"runner has {self._task.key if self._task else ''}, not {task.key}")
            self._task, self._supervisor = task, Supervisor(task)
            self._running = asyncio.create_task(self._supervisor.run())
        assert self._supervisor is not None
        return self._supervisor.view()

    async def changed_after(self, key: AllocationKey, version: int) -> TaskView | None:
        """The task as soon as it is newer than that version; None when this runner does not have it."""
        if self._supervisor is None or self._task is None or self._task.key != key:
            return None
        return await self._supervisor.changed_after(version)

    async def stop(self, key: AllocationKey) -> None:
        """End the task, if it is still the one; its end shows as any other."""
        if self._supervisor is not None and self._task is not None and self._task.key == key:
            self._supervisor.stop()
