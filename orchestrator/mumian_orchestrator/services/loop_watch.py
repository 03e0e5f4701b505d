"""How long the event loop keeps others waiting: everything that this process does has to pass through it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

log = logging.getLogger(__name__)

LIMIT_S = 0.1
_LOOK_EVERY_S = 0.02
_KEPT_S = 60


class LoopWatch:
    """Asks for a turn every now and then, and measures how late it comes."""

    def __init__(self) -> None:
        # The worst of each of the last seconds: which second, and how late.
        self._worst: deque[tuple[int, float]] = deque(maxlen=_KEPT_S)
        self.over_limit = 0  # turns that were later than the limit
        self.total_s = 0.0  # of all lateness

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            due_s = time.monotonic() + _LOOK_EVERY_S
            await asyncio.sleep(_LOOK_EVERY_S)
            self._note(due_s, max(0.0, time.monotonic() - due_s))

    def worst_s(self) -> float:
        """The longest stall of the last minute."""
        since_s = time.monotonic() - _KEPT_S
        return max((stall_s for second, stall_s in list(self._worst) if second >= since_s), default=0.0)

    def _note(self, at_s: float, stall_s: float) -> None:
        self.total_s += stall_s
        if stall_s > LIMIT_S:
            self.over_limit += 1
            log.warning("the event loop stalled for %.0f ms", stall_s * 1000)
        second = int(at_s)
        if self._worst and self._worst[-1][0] == second:
            self._worst[-1] = (second, max(self._worst[-1][1], stall_s))
        else:
            self._worst.append((second, stall_s))
