"""The store of a simulation, which remembers everything, and what lies between it and each coordinator."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeVar

from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.ports.key_value import KeyEvent, NoAnswerError

from tests.sim.processes import Process

T = TypeVar("T")

_ATTEMPT_S = 0.5
_WAY_S = (0.0002, 0.004)


class RememberingCluster(MemoryCluster):
    """Keeps all of its history for the oracle, whatever is compacted."""

    def __init__(self) -> None:
        super().__init__()
        self.remembered: list[KeyEvent] = []

    def _happened(self, events: Sequence[KeyEvent]) -> None:
        self.remembered += events
        super()._happened(events)


@dataclass(slots=True)
class Weather:
    """How the store is to be reached, for all or for one. Shares are of calls."""

    requests_lost: float = 0.0
    answers_lost: float = 0.0
    late: float = 0.0  # requests that arrive after nobody waits for them any more, and in any order
    slow_s: float = 0.0  # at most, each way


class StoreLink:
    """Between one coordinator and the store: calls get lost on both ways, and arrive late."""

    def __init__(
        self, process: Process, everywhere: Weather, here: Weather, chance: random.Random, world: Context
    ) -> None:
        self._process, self._weathers, self._random, self._world = process, (everywhere, here), chance, world

    async def call(self, method: str, apply: Callable[[], T]) -> T:
        """Carry one request there and its answer back.

        Raises:
            NoAnswerError: no answer came in time.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[T] = loop.create_future()

        def arrive() -> None:
            # It happens at the store, whatever has become of the one who asked.
            answer: T | None = None
            error: Exception | None = None
            try:
                answer = apply()
            except Exception as caught:
                error = caught
            if not self._happens("answers_lost"):
                loop.call_later(self._way_s(), come_back, answer, error, context=self._world)

        def come_back(answer: Any, error: Exception | None) -> None:
            if answered.done():
                return
            if error is None:
                answered.set_result(answer)
            else:
                answered.set_exception(error)

        if self._process.is_alive and not self._happens("requests_lost"):
            way_s = self._random.uniform(0, 3) if self._happens("late") else self._way_s()
            loop.call_later(way_s, arrive, context=self._world)
        try:
            async with asyncio.timeout(_ATTEMPT_S):
                return await answered
        except TimeoutError:
            raise NoAnswerError(f"{method}: no answer within {_ATTEMPT_S} s") from None

    def _happens(self, what: str) -> bool:
        return any(self._random.random() < getattr(weather, what) for weather in self._weathers)

    def _way_s(self) -> float:
        slow_s = sum(weather.slow_s for weather in self._weathers)
        return self._random.uniform(*_WAY_S) + self._random.uniform(0, slow_s)
