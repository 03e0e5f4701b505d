"""The network between coordinators, sites and tenants: streams and calls, over roads that can be closed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

Sent = TypeVar("Sent", bound=Message)

# After so long without an answer to its pings an end takes its connection to be broken.
KEEPALIVE_S = 3.0
_WAY_S = (0.0005, 0.01)
_APART_S = 1e-6


class UnreachableError(Exception):
    """The call has come to nothing, as far as the caller knows."""


class CallRefusedError(Exception):
    """The call was answered with an error."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code


@dataclass(slots=True)
class Road:
    """One way from one place to another."""

    is_closed: bool = False
    replayed: float = 0.0  # the share of messages of a stream that come once more, later
    shuffled: float = 0.0  # the share that is overtaken by those behind it


class Roads:
    """All of them, by where they begin and end."""

    def __init__(self, chance: random.Random, world: Context) -> None:
        self.random, self.world = chance, world
        self._roads: dict[tuple[str, str], Road] = {}

    def road(self, begin: str, end: str) -> Road:
        """One of them."""
        return self._roads.setdefault((begin, end), Road())

    def way_s(self) -> float:
        """How long something is under way."""
        return self.random.uniform(*_WAY_S)

    def later(self, delay_s: float, what: Callable[..., object], *args: object) -> None:
        """Have something happen outside of all processes."""
        asyncio.get_running_loop().call_later(delay_s, what, *args, context=self.world)


class Pipe(Generic[Sent]):
    """One direction of one stream: bytes that come out in order, unless the road shuffles them."""

    def __init__(self, roads: Roads, road: Road, kind: type[Sent], is_robust: bool) -> None:
        """`is_robust`: whether replayed and shuffled messages are to do no harm."""
        self._roads, self._road, self._kind, self._is_robust = roads, road, kind, is_robust
        self._waiting: list[bytes] = []  # for the road to be opened
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._last_s = 0.0
        self._count = 0
        self.is_broken = False

    def put(self, message: Sent) -> None:
        """Send."""
        data, now_s = message.SerializeToString(), asyncio.get_running_loop().time()
        self._count += 1
        # Timers of the same instant fire in any order.
        at_s = max(self._last_s + _APART_S, now_s + self._roads.way_s())
        random_now = self._roads.random.random
        # The first of a stream is what the stream is about.
        if self._is_robust and self._count > 1:
            if random_now() < self._road.shuffled:
                self._roads.later(at_s - now_s + self._roads.random.uniform(0, 1.5), self._arrive, data)
                return
            if random_now() < self._road.replayed:
                self._roads.later(at_s - now_s + self._roads.random.uniform(0, 5), self._arrive, data)
        self._last_s = at_s
        self._roads.later(at_s - now_s, self._arrive, data)

    def break_off(self) -> None:
        """Nothing comes out any more."""
        self.is_broken = True
        self._arrived.put_nowait(None)

    def opened(self) -> None:
        """The road is open again: what was held up goes on."""
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._arrive(data)

    async def messages(self) -> AsyncIterator[Sent]:
        """What comes out, until it breaks."""
        while not self.is_broken:
            data = await self._arrived.get()
            if data is None:
                return
            message = self._kind()
            message.ParseFromString(data)
            yield message

    def _arrive(self, data: bytes) -> None:
        if self.is_broken:
            return
        if self._road.is_closed:
            self._waiting.append(data)
        else:
            self._arrived.put_nowait(data)


class Metadata:
    """What gRPC tells a servicer of its call, and how the call ends with an error."""

    def __init__(self, tenant: str = "") -> None:
        self._metadata = (("mumian-tenant", tenant),) if tenant else ()

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """What the caller has sent beside the request."""
        return self._metadata

    async def abort_with_status(self, status: Any) -> None:
        """End the call.

        Raises:
            CallRefusedError: always.
        """
        raise CallRefusedError(status.code, status.details)
