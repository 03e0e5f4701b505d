"""Who is let in next when more is asked than can be done: tenant after tenant, and so many at a time."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from mumian_orchestrator.domain.errors import overloaded

_RETRY_FIRST_S, _RETRY_LAST_S, _HELD_TIMES = 0.1, 5.0, 2
# The requests by which it is told how fast they are done.
_TIMED = 256
# Let in between two turns of the event loop: requests are taken up by it as well, and those that are not yet
# are in no tenant's line. Fewer, and what each turn costs anyway is shared by fewer.
_IN_A_LOOP_TURN = 4


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Requests that wait together, and who waits for their turn."""

    count: int
    admitted: asyncio.Future[None]


class FairQueue:
    """Deficit round robin over the tenants that wait (Shreedhar and Varghese, SIGCOMM 1995): in each round a
    tenant gets as many requests as its weight. Each waits behind its own requests only.

    What waits is bounded, for each tenant and for all together. What is more is refused with the time after
    which it may be tried again: about as long as what waits now will take. For twice as long the refusal
    itself is held back, because who comes again at once, and is refused again, costs half as much as who is
    let in; as many are held as may wait, and the rest is refused at once.

    Args:
        name: of what is asked, for the refusal.
        at_once_max: turns that are under way together.
        waiting_max, waiting_of_tenant_max: requests that wait, of all tenants and of one.
        weights: requests that a tenant gets in one round; 1 for those that are not named.
    """

    def __init__(
        self,
        name: str,
        at_once_max: int,
        waiting_max: int,
        waiting_of_tenant_max: int,
        weights: Mapping[str, int] | None = None,
    ) -> None:
        self._name, self._at_once_max = name, at_once_max
        self._waiting_max, self._waiting_of_tenant_max = waiting_max, waiting_of_tenant_max
        self._weights = weights or {}
        # The tenants that have requests waiting, in the order of their turns; the first has its turn now.
        self._waiting: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._waiting_of: Counter[str] = Counter()
        self._held_of: Counter[str] = Counter()  # refusals that are held back
        # What each may still have in this round; below 0 it has had some of the next. Others have none.
        self._left: dict[str, int] = {}
        self._admitted = 0  # requests, since the event loop has turned
        self.under_way = 0
        self.waiting = 0
        self.refused = 0
        self.done = 0
        self._done_at_s: deque[tuple[float, int]] = deque(maxlen=_TIMED)

    def turn(self, tenant_id: str, count: int = 1) -> Turn:
        """Wait for one's turn with `async with`; others have theirs when it ends.

        Args:
            count: requests that have this turn together.

        Raises:
            RequestRefusedError: OVERLOADED; too many wait.
        """
        return Turn(self, tenant_id, count)

    async def enter(self, tenant_id: str, count: int) -> None:
        """What `turn` begins with."""
        if not self.waiting and self._may_admit():
            self._admit(count)
            return
        admitted_soon = self._at_once_max - self.under_way  # they wait for the event loop to turn only
        if (
            self.waiting + count > self._waiting_max + admitted_soon
            or self._waiting_of[tenant_id] + count > self._waiting_of_tenant_max + admitted_soon
        ):
            await self._refuse(tenant_id, count)
        request = _Waiting(count, asyncio.get_running_loop().create_future())
        if not self._waiting:
            self._left = {tenant_id: self._weight(tenant_id)}
        self._waiting.setdefault(tenant_id, deque()).append(request)
        self._waiting_of[tenant_id] += count
        self.waiting += count
        try:
            await request.admitted
        except asyncio.CancelledError:
            if request.admitted.done() and not request.admitted.cancelled():
                self.leave(count)  # it was admitted in the very moment in which it went away
            raise

    async def _refuse(self, tenant_id: str, count: int) -> NoReturn:
        self.refused += count
        retry_after_s = self._retry_after_s()
        is_held = self._held_of[tenant_id] < self._waiting_of_tenant_max
        if is_held and self._held_of.total() < self._waiting_max:
            self._held_of[tenant_id] += 1
            try:
                await asyncio.sleep(_HELD_TIMES * retry_after_s)
            finally:
                self._held_of[tenant_id] -= 1
                if not self._held_of[tenant_id]:
                    del self._held_of[tenant_id]
            retry_after_s = _RETRY_FIRST_S
        raise overloaded(self._name, retry_after_s)

    def leave(self, count: int) -> None:
        """What `turn` ends with."""
        self.done += count
        self._done_at_s.append((asyncio.get_running_loop().time(), count))
        self.under_way -= 1
        self._admit_next()

    def _may_admit(self) -> bool:
        return self.under_way < self._at_once_max and self._admitted < _IN_A_LOOP_TURN

    def _admit(self, count: int) -> None:
        self.under_way += 1
        if not self._admitted:
            asyncio.get_running_loop().call_soon(self._loop_has_turned)
        self._admitted += count

    def _loop_has_turned(self) -> None:
        self._admitted = 0
        self._admit_next()

    def _admit_next(self) -> None:
        while self._waiting:
            tenant_id = self._whose_turn()
            request = self._waiting[tenant_id][0]
            if request.admitted.done():  # it went away
                self._take(tenant_id)
            elif self._may_admit():
                self._take(tenant_id)
                self._left[tenant_id] -= request.count
                self._admit(request.count)
                request.admitted.set_result(None)
            else:
                return

    def _whose_turn(self) -> str:
        """The first that has something left in this round; whoever has not waits for the next."""
        while True:
            tenant_id = next(iter(self._waiting))
            if self._left.setdefault(tenant_id, self._weight(tenant_id)) > 0:
                return tenant_id
            self._left[tenant_id] += self._weight(tenant_id)
            self._waiting.move_to_end(tenant_id)

    def _take(self, tenant_id: str) -> None:
        """Take the first request out of its line."""
        requests = self._waiting[tenant_id]
        count = requests.popleft().count
        self.waiting -= count
        self._waiting_of[tenant_id] -= count
        if not requests:
            del self._waiting[tenant_id], self._waiting_of[tenant_id]

    def _weight(self, tenant_id: str) -> int:
        return max(1, self._weights.get(tenant_id, 1))

    def _retry_after_s(self) -> float:
        if len(self._done_at_s) < 2:
            return _RETRY_FIRST_S
        took_s = asyncio.get_running_loop().time() - self._done_at_s[0][0]
        expected_s = self.waiting * took_s / sum(count for _, count in self._done_at_s)
        return min(max(expected_s, _RETRY_FIRST_S), _RETRY_LAST_S)


class Turn:
    """One turn of a `FairQueue`."""

    __slots__ = ("_count", "_queue", "_tenant_id")

    def __init__(self, queue: FairQueue, tenant_id: str, count: int) -> None:
        self._queue, self._tenant_id, self._count = queue, tenant_id, count

    async def __aenter__(self) -> None:
        await self._queue.enter(self._tenant_id, self._count)

    async def __aexit__(self, *_: object) -> None:
        self._queue.leave(self._count)
