"""Who is let in next when more is asked than can be done: tenant after tenant, and so many at a time."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from mumian_orchestrator.domain.errors import overloaded

_RETRY_FIRST_S, _RETRY_LAST_S, _HELD_TIMES = 0.1, 5.0, 2
# For so long after it has come or gone, a tenant counts in what others may have under way.
_LATELY_S = 1.0
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

    Whoever comes waits in the event loop and for the store with all that is under way, so while others ask
    as well a tenant has no more than a few turns under way, and the rest of them only when it is alone.

    Args:
        name: of what is asked, for the refusal.
        at_once_max: turns that are under way together.
        beside_others_max: of them, of a tenant while another is there, or was lately; 0: as many.
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
        beside_others_max: int = 0,
    ) -> None:
        self._name, self._at_once_max = name, at_once_max
        self._beside_others_max = beside_others_max or at_once_max
        self._waiting_max, self._waiting_of_tenant_max = waiting_max, waiting_of_tenant_max
        self._weights = weights or {}
        # The tenants that have requests waiting, in the order of their turns; the first has its turn now.
        self._waiting: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._waiting_of: Counter[str] = Counter()
        self._held_of: Counter[str] = Counter()  # refusals that are held back
        self._under_way_of: Counter[str] = Counter()  # turns
        self._here_at_s: OrderedDict[str, float] = OrderedDict()  # who came or went lately, the last last
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
        self._note(tenant_id)
        if not self.waiting and self._may_admit() and self._has_room(tenant_id):
            self._admit(tenant_id, count)
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
        self._admit_next()  # those before it may wait for turns of their own tenants
        try:
            await request.admitted
        except asyncio.CancelledError:
            if request.admitted.done() and not request.admitted.cancelled():
                self.leave(tenant_id, count)  # it was admitted in the very moment in which it went away
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

    def leave(self, tenant_id: str, count: int) -> None:
        """What `turn` ends with."""
        self.done += count
        self._done_at_s.append((asyncio.get_running_loop().time(), count))
        self.under_way -= 1
        self._note(tenant_id)
        self._under_way_of[tenant_id] -= 1
        if not self._under_way_of[tenant_id]:
            del self._under_way_of[tenant_id]
        self._admit_next()

    def _may_admit(self) -> bool:
        return self.under_way < self._at_once_max and self._admitted < _IN_A_LOOP_TURN

    def _has_room(self, tenant_id: str) -> bool:
        """Whether one more turn of the tenant may be under way, as far as others are concerned."""
        return self._under_way_of[tenant_id] < self._beside_others_max or self._is_alone(tenant_id)

    def _is_alone(self, tenant_id: str) -> bool:
        for tenants in (self._under_way_of, self._waiting):
            if len(tenants) > (tenant_id in tenants):
                return False
        for other, here_at_s in reversed(self._here_at_s.items()):
            if other != tenant_id:
                return here_at_s <= asyncio.get_running_loop().time() - _LATELY_S
        return True

    def _note(self, tenant_id: str) -> None:
        now_s = asyncio.get_running_loop().time()
        self._here_at_s[tenant_id] = now_s
        self._here_at_s.move_to_end(tenant_id)
        while next(iter(self._here_at_s.values())) <= now_s - _LATELY_S:
            self._here_at_s.popitem(last=False)

    def _admit(self, tenant_id: str, count: int) -> None:
        self.under_way += 1
        self._under_way_of[tenant_id] += 1
        if not self._admitted:
            asyncio.get_running_loop().call_soon(self._loop_has_turned)
        self._admitted += count

    def _loop_has_turned(self) -> None:
        self._admitted = 0
        self._admit_next()

    def _admit_next(self) -> None:
        while self._may_admit() and (tenant_id := self._whose_turn()) is not None:
            request = self._take(tenant_id)
            if not request.admitted.done():  # else it went away
                self._left[tenant_id] -= request.count
                self._admit(tenant_id, request.count)
                request.admitted.set_result(None)

    def _whose_turn(self) -> str | None:
        """The first that has something left in this round; whoever has not waits for the next.

        Passed over is who has as much under way as it may. Others go on meanwhile, but those that have had
        some of the next round already wait for what it has left in this one.
        """
        while True:
            tenant_id = next(filter(self._may_have_turn, self._waiting), None)
            if tenant_id is None or self._left_of(tenant_id) > 0:
                return tenant_id
            for each in (tenant_id, *self._passed_over()):
                if self._left_of(each) <= 0:
                    self._left[each] += self._weight(each)
            self._waiting.move_to_end(tenant_id)

    def _may_have_turn(self, tenant_id: str) -> bool:
        if not self._has_room(tenant_id):
            return False
        return self._left_of(tenant_id) >= 0 or all(self._left_of(each) <= 0 for each in self._passed_over())

    def _passed_over(self) -> Iterator[str]:
        """They are few: each has several turns under way."""
        return (each for each in self._under_way_of if each in self._waiting and not self._has_room(each))

    def _left_of(self, tenant_id: str) -> int:
        return self._left.setdefault(tenant_id, self._weight(tenant_id))

    def _take(self, tenant_id: str) -> _Waiting:
        """Take the first request out of its line."""
        requests = self._waiting[tenant_id]
        first = requests.popleft()
        self.waiting -= first.count
        self._waiting_of[tenant_id] -= first.count
        if not requests:
            del self._waiting[tenant_id], self._waiting_of[tenant_id]
        return first

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
        self._queue.leave(self._tenant_id, self._count)
