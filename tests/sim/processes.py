"""Processes inside one event loop, that can be killed, and stopped and continued, at any moment.

Every task knows by its context which process it belongs to, and so do the tasks and timers that it begins.
The loop keeps back what belongs to a process that does not run: a stopped one goes on where it was, late; of
a killed one nothing ever runs again, not even what would clean up.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

from mumian_orchestrator.adapters.memory.virtual_time import VirtualTimeLoop

T = TypeVar("T")

_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def current() -> Process | None:
    """The process that runs now; None: the world around them."""
    return _PROCESS.get()


class Process:
    """What dies, sleeps and wakes together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive, self.is_stopped = True, False
        self._held: deque[asyncio.Handle] = deque()
        self._context = copy_context()
        self._context.run(_PROCESS.set, self)

    @property
    def runs(self) -> bool:
        """Whether anything of it happens now."""
        return self.is_alive and not self.is_stopped

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a task in it."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())

    def live(self, work: Coroutine[Any, Any, None], crashed: Callable[[str], None]) -> None:
        """Begin its main task; `crashed` is told if that ends with an exception."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                crashed(f"{self.name} has crashed:\n{''.join(traceback.format_exception(error))}")

        self.start(work).add_done_callback(ended)

    def call(self, function: Callable[..., object]) -> None:
        """Have it do something soon."""
        asyncio.get_running_loop().call_soon(function, context=self._context)

    def kill(self) -> None:
        """As by kill -9."""
        self.is_alive = False
        _loop().hold_back(self)

    def stop(self) -> None:
        """As by SIGSTOP."""
        self.is_stopped = True
        _loop().hold_back(self)

    def resume(self) -> None:
        """As by SIGCONT."""
        self.is_stopped = False
        if self.is_alive:
            _loop().go_on(self)

    def hold(self, handle: asyncio.Handle) -> None:
        """Keep back what it would do now."""
        self._held.append(handle)

    def release(self) -> deque[asyncio.Handle]:
        """What was kept back."""
        held, self._held = self._held, deque()
        return held


class Simulation(VirtualTimeLoop):
    """The loop. Whoever closes it first calls `release_all`, so that all tasks can be cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self._is_over = False
        self._processes: list[Process] = []
        self._ready: deque[asyncio.Handle] = _Ready(self)
        self._nothing = asyncio.Handle(lambda: None, (), self)
        self._nothing.cancel()
        # asyncio itself would forget a task that nobody can wake, and so run what cleans up after it.
        self._tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._remember)

    def process_of(self, handle: asyncio.Handle) -> Process | None:
        """The one that a callback belongs to, if it is not to run now."""
        context: Context = handle._context  # type: ignore[attr-defined]
        process = context.get(_PROCESS)
        return None if process is None or process.runs or self._is_over else process

    def hold_back(self, process: Process) -> None:
        """Take out what one was about to do."""
        self._processes.append(process)
        # In their places, for the loop counts what it is about to run.
        for index, handle in enumerate(self._ready):
            holder = self.process_of(handle)
            if holder is not None:
                holder.hold(handle)
                self._ready[index] = self._nothing

    def go_on(self, process: Process) -> None:
        """Do what was kept back."""
        self._ready.extend(process.release())

    def _remember(self, loop: asyncio.AbstractEventLoop, work: Any, **how: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, **how)
        self._tasks.append(task)
        return task

    def release_all(self) -> None:
        """The simulation is over: let everybody clean up."""
        self._is_over = True
        for process in self._processes:
            self.go_on(process)


class _Ready(deque[asyncio.Handle]):
    """The loop's queue of what is to run now."""

    def __init__(self, loop: Simulation) -> None:
        super().__init__()
        self._loop = loop

    def append(self, handle: asyncio.Handle) -> None:
        process = self._loop.process_of(handle)
        if process is None:
            super().append(handle)
        else:
            process.hold(handle)


def _loop() -> Simulation:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Simulation)
    return loop
