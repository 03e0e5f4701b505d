"""What decides in a run: the engine in batches, or all services. The simulation asks at each tick."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mumian.api.v1.fleet_pb2 import Site

from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock
from mumian_orchestrator.bench.sim.arrivals import Arrival
from mumian_orchestrator.bench.sim.links import Links


class Placed(NamedTuple):
    """Where a task has gone, and how much of which devices it holds."""

    task_id: str
    site_id: str
    node_id: str
    devices_milli: tuple[tuple[int, int], ...] = ()


class Stage(Protocol):
    """Where tasks run: the simulation, as a backend sees it."""

    def begin_move(self, placed: Placed) -> bool:
        """A second copy of a running task starts there; whether it has taken over at once."""

    def give_up_move(self, task_id: str) -> None:
        """That copy is stopped; the task goes on where it was."""


class Backend(Protocol):
    """Told in this order at each tick. Moves are begun on the stage at any time."""

    stage: Stage
    decision_s: float
    """Real time spent on decisions."""

    async def turn(self, now_s: int, up: Sequence[str], ended: Sequence[str]) -> None:
        """Since the last tick these have come up, be it at a new place, and these have ended."""

    async def change(self, now_s: int, sites: Sequence[Site], links: Links) -> None:
        """The world is different from now on."""

    async def decide(
        self, now_s: int, lost: Sequence[str], waiting: Sequence[Arrival], arrived: Sequence[Arrival]
    ) -> list[Placed]:
        """Take note of what is lost with its site; place what waits (oldest first) and what arrived."""

    async def rearrange(self, now_s: int) -> None:
        """Move what runs where it no longer should."""


async def sleep_until(virtual_s: float) -> None:
    """Let so much of virtual time pass."""
    await asyncio.sleep(max(0.0, virtual_s - VirtualClock().monotonic_s()))
