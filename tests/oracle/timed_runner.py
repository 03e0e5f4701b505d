"""Runners that keep time instead of running processes, and tell the history of all that they do."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from mumian.agent.v1 import agent_pb2 as pb
from mumian.api.v1 import job_pb2
from mumian_agent.agent.allocations import now
from mumian_agent.agent.ports import RunnerHandle, RunnerLostError
from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime.cut_off import CutOff
from mumian_agent.runtime.task import Task, TaskView

from tests.oracle.history import History


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """Where runners run.

    Args:
        start: begins what goes on when the agent dies.
    """

    id: str
    history: History
    clock: Callable[[], Timestamp] = now
    start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = asyncio.create_task


class TimedRunner:
    """Runs `sleep SECONDS` by letting them pass; `sleep SECONDS fail` then fails."""

    def __init__(self, name: str, node: Node) -> None:
        self.name, self._node = name, node
        self._view: TaskView | None = None
        self._changed = asyncio.Event()
        self._passing: asyncio.Task[None] | None = None
        self._is_lost = False

    async def run(self, task: Task) -> TaskView:
        """Begin a task; it ends by itself, or when its site is cut off for too long."""
        allocation_id, attempt = task.key
        self._tell("started", task.key, cpu_milli=task.run.task_group.resources.cpu_milli)
        status = pb.AllocationStatus(
            allocation_id=allocation_id,
            attempt=attempt,
            state=job_pb2.ALLOCATION_STATE_RUNNING,
            restart_count=task.restart_count,
            start_time=self._node.clock(),
        )
        self._view = TaskView(1, status, None)
        self._passing = self._node.start(self._pass(task))
        return self._view

    async def changed_after(self, key: AllocationKey, version: int) -> TaskView | None:
        """The task once it is newer.

        Raises:
            RunnerLostError: its node went down.
        """
        while self._view is not None and self._view.version <= version and not self._is_lost:
            await self._changed.wait()
        if self._is_lost:
            raise RunnerLostError(f"{self.name} is gone")
        return self._view

    async def stop(self, key: AllocationKey) -> None:
        """End the task."""
        if self._passing is not None and self._is_running():
            self._passing.cancel()
            self._end(job_pb2.ALLOCATION_STATE_CANCELLED)

    def lose(self) -> None:
        """Its node goes down."""
        self._is_lost = True
        if self._passing is not None:
            self._passing.cancel()
        if self._view is not None and self._is_running():
            key = AllocationKey(self._view.status.allocation_id, self._view.status.attempt)
            self._tell("stopped", key, state="LOST")
        self._changed.set()

    async def _pass(self, task: Task) -> None:
        _, seconds, *fail = task.run.task_group.command.argv
        cut_off = CutOff(task)
        if task.run.on_disconnect.stop_after_s:
            try:
                async with asyncio.timeout(float(seconds)):
                    await cut_off.wait()
                self._end(job_pb2.ALLOCATION_STATE_CANCELLED, cut_off=True)
                return
            except TimeoutError:
                pass
        else:
            await asyncio.sleep(float(seconds))
        failed, well = job_pb2.ALLOCATION_STATE_FAILED, job_pb2.ALLOCATION_STATE_SUCCEEDED
        self._end(failed if fail else well, exit_code=1 if fail else 0)

    def _end(self, state: job_pb2.AllocationState.ValueType, **more: Any) -> None:
        assert self._view is not None
        status = pb.AllocationStatus(**more)
        status.MergeFrom(self._view.status)
        status.state = state
        status.end_time.CopyFrom(self._node.clock())
        key = AllocationKey(status.allocation_id, status.attempt)
        self._tell(
            "stopped", key, state=job_pb2.AllocationState.Name(state).removeprefix("ALLOCATION_STATE_")
        )
        self._view = dataclasses.replace(self._view, version=self._view.version + 1, status=status)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _is_running(self) -> bool:
        return self._view is not None and self._view.status.state == job_pb2.ALLOCATION_STATE_RUNNING

    def _tell(self, what: str, key: AllocationKey, **more: Any) -> None:
        self._node.history.add(
            what,
            allocation=key.allocation_id,
            attempt=key.attempt,
            node=self._node.id,
            runner=self.name,
            **more,
        )


class TimedRunners:
    """As many runners as are asked for; each is used once."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._numbers = itertools.count(1)
        self._in_use: dict[str, TimedRunner] = {}

    async def open(self, in_use: Iterable[str]) -> None:
        """They are there."""

    async def warm_up(self, node_ids: Iterable[str]) -> None:
        """They start at once."""

    async def take(self, node_id: str) -> TimedRunner:
        """A new one."""
        runner = TimedRunner(f"{self._node.id}-{next(self._numbers)}", self._node)
        self._in_use[runner.name] = runner
        return runner

    def find(self, name: str) -> RunnerHandle | None:
        """One that an earlier agent has left."""
        return self._in_use.get(name)

    def give_back(self, runner: RunnerHandle) -> None:
        """It is not used again."""
        self._in_use.pop(runner.name, None)

    def discard(self, runner: RunnerHandle) -> None:
        """It is not used again."""
        self._in_use.pop(runner.name, None)

    def lose_all(self) -> None:
        """The node goes down."""
        in_use, self._in_use = self._in_use, {}
        for runner in in_use.values():
            runner.lose()
