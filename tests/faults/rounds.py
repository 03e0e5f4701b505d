"""What is done to the coordinators in one round, by name. Each fault returns when it has struck."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mumian_orchestrator.services.failpoints import Failpoint

from tests.faults.coordinators import Coordinators
from tests.faults.load import Load
from tests.oracle.history import History


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault may use."""

    coordinators: Coordinators
    load: Load
    history: History
    random: random.Random
    lease_ttl_s: int


# Makes the fault, and returns how to make it good again.
Fault = Callable[[Scene], Awaitable[Callable[[], Awaitable[None]]]]


async def _kill(scene: Scene) -> Callable[[], Awaitable[None]]:
    leader = await scene.coordinators.leader()
    scene.coordinators.kill(leader)
    return lambda: scene.coordinators.start(leader)


def _die_at(failpoint: Failpoint) -> Fault:
    async def fault(scene: Scene) -> Callable[[], Awaitable[None]]:
        dead = await scene.coordinators.die(failpoint)
        return lambda: scene.coordinators.start(dead)

    return fault


async def _sleep(scene: Scene) -> Callable[[], Awaitable[None]]:
    """Stopped past its lease, and continued while another leads."""
    leader = await scene.coordinators.leader()
    scene.coordinators.send(leader, signal.SIGSTOP)

    async def wake() -> None:
        scene.coordinators.send(leader, signal.SIGCONT)
        # It steps down, and follows: what is asked there is answered by the other.
        await scene.load.submit_at(leader)

    return wake


async def _hand_over(scene: Scene) -> Callable[[], Awaitable[None]]:
    leader = await scene.coordinators.leader()
    scene.coordinators.send(leader, signal.SIGTERM)
    return lambda: scene.coordinators.start(leader)


async def _roll(scene: Scene) -> Callable[[], Awaitable[None]]:
    """Each in turn is stopped and started again, the leader last."""
    leader = await scene.coordinators.leader()
    for address in sorted(scene.coordinators.addresses, key=lambda address: address == leader):
        await scene.coordinators.stop(address)
        if address != leader:
            await scene.coordinators.start(address)
    return lambda: scene.coordinators.start(leader)


async def _repeat(scene: Scene) -> Callable[[], Awaitable[None]]:
    """The same requests go to all coordinators at once while the leader is killed."""
    leader = await scene.coordinators.leader()
    scene.load.repeat(8)
    await asyncio.sleep(scene.random.uniform(0, 0.05))
    scene.coordinators.kill(leader)
    return lambda: scene.coordinators.start(leader)


async def _race(scene: Scene) -> Callable[[], Awaitable[None]]:
    """200 submits at once, more than there is room for, and the leader is killed among them."""
    leader = await scene.coordinators.leader()
    scene.load.race(200)
    await asyncio.sleep(scene.random.uniform(0, 0.3))
    scene.coordinators.kill(leader)
    return lambda: scene.coordinators.start(leader)


FAULTS: dict[str, Fault] = {
    "kill": _kill,
    **{f"die-{failpoint}": _die_at(failpoint) for failpoint in Failpoint},
    "sleep": _sleep,
    "hand-over": _hand_over,
    "roll": _roll,
    "repeat": _repeat,
    "race": _race,
}
