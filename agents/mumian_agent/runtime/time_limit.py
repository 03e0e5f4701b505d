"""When a task must end though nobody asks for it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

_LOOK_EVERY_S = 0.5


class TimeLimit(ABC):
    """A moment, which may move away, by which the task has ended, because others count on it. So the stop
    begins earlier, by the grace that the task has to end by itself.
    """

    def __init__(self, grace_s: float, *, is_set: bool) -> None:
        """`is_set`: whether the task has this limit at all."""
        self.grace_s, self._is_set = grace_s, is_set
        self.is_over = False

    @property
    @abstractmethod
    def reason(self) -> str:
        """What the task's tenant is told."""

    @abstractmethod
    def _left_s(self) -> float:
        """Until that moment, as things are now."""

    async def wait(self) -> None:
        """Return when the task is to be stopped; never for a task without this limit."""
        if not self._is_set:
            await asyncio.get_running_loop().create_future()
        while not self.look():  # noqa: ASYNC110 -- another process writes what it goes by
            await asyncio.sleep(_LOOK_EVERY_S)

    def look(self) -> bool:
        """Whether the task is to be stopped; once it is, it stays so."""
        if self._is_set and not self.is_over:
            self.is_over = self._left_s() <= self.grace_s + _LOOK_EVERY_S
        return self.is_over
