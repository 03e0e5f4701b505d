"""Time that passes at once: an event loop for simulations, in which waiting costs nothing.

The loop runs what is ready; when nothing is, it moves its clock to the next timer instead of sleeping. With
work that depends on nothing else (no sockets, no threads), the same coroutines run in the same order every
time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T")

_EPOCH_UNIX_S = 1_767_225_600  # 2026-01-01T00:00:00Z


class _TimeMachine(selectors.SelectSelector):
    """Where a real selector would sleep, it moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits for something that will never happen")
        # No socket has anything to say: there are none but the loop's own.
        self.now_s += max(0.0, timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is virtual. Work for threads is done on the spot, so its order is fixed."""

    def __init__(self) -> None:
        self._machine = _TimeMachine()
        super().__init__(self._machine)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._machine.now_s

    def run_in_executor(  # type: ignore[override]
        self,
        _executor: object,
        func: Callable[..., T],
        *args: Any,
    ) -> asyncio.Future[T]:
        """Call the function now; its result waits for whoever awaits it."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


def run_in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, with time that passes at once."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


class VirtualClock:
    """The clock of one simulated machine: the running loop's time, and how far its wall clock is off.

    Args:
        offset_s: added to the wall clock; may be changed at any time.
    """

    def __init__(self, offset_s: float = 0.0) -> None:
        self.offset_s = offset_s

    def now(self) -> Timestamp:
        """Wall-clock time, from the start of 2026 on."""
        now = Timestamp()
        now.FromNanoseconds(
            _EPOCH_UNIX_S * 1_000_000_000 + round((self.monotonic_s() + self.offset_s) * 1_000_000_000)
        )
        return now

    def monotonic_s(self) -> float:
        """Virtual seconds since the simulation began."""
        return asyncio.get_running_loop().time()
