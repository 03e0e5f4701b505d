"""Who is let in next when more is asked than can be done: tenant after tenant, and so many at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from mumian_orchestrator.domain.errors import overloaded

_RETRY_FIRST_S, _RETRY_LAST_S = 0.1, 5.0
# The requests by which it is told how fast they are done.
_TIMED = 256


class FairQueue:
    """Weighted round robin over the tenants that wait; each waits behind its own requests only.

    What waits is bounded, for each tenant and for all together. What is more is refused at once, with the
    time after which it may be tried again: about as long as what waits now will take.

    Args:
        name: of what is asked, for the refusal.
        at_once_max: requests that are under way together.
        waiting_max, waiting_of_tenant_max: requests that wait, of all tenants and of one.
        weights: requests that a tenant gets in one turn; 1 for those that are not named.
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
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._left_in_turn = 0
        self._has_admitted = False  # since the event loop has turned
        self.under_way = 0
        self.waiting = 0
        self.refused = 0
        self.done = 0
        self._done_at_s: deque[float] = deque(maxlen=_TIMED)

    @asynccontextmanager
    async def turn(self, tenant_id: str) -> AsyncIterator[None]:
        """Wait for one's turn; others have theirs when this ends.

        Raises:
            RequestRefusedError: OVERLOADED; too many wait.
        """
        await self._enter(tenant_id)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, tenant_id: str) -> None:
        if self._may_admit() and not self.waiting:
            self._admit()
            return
        mine = self._waiting.get(tenant_id, ())
        admitted_soon = self._at_once_max - self.under_way  # they wait for the event loop to turn only
        if (
            self.waiting >= self._waiting_max + admitted_soon
            or len(mine) >= self._waiting_of_tenant_max + admitted_soon
        ):
            self.refused += 1
            raise overloaded(self._name, self._retry_after_s())
        admitted = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._left_in_turn = self._weight(tenant_id)
        self._waiting.setdefault(tenant_id, deque()).append(admitted)
        self.waiting += 1
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self._leave()  # it was admitted in the very moment in which it went away
            raise

    def _leave(self) -> None:
        self.done += 1
        self._done_at_s.append(asyncio.get_running_loop().time())
        self.under_way -= 1
        self._admit_next()

    def _may_admit(self) -> bool:
        return self.under_way < self._at_once_max and not self._has_admitted

    def _admit(self) -> None:
        """Let one in. Between two the event loop turns once: requests are taken up by it as well, and those
        that are not yet are in no tenant's line.
        """
        self.under_way += 1
        self._has_admitted = True
        asyncio.get_running_loop().call_soon(self._loop_has_turned)

    def _loop_has_turned(self) -> None:
        self._has_admitted = False
        self._admit_next()

    def _admit_next(self) -> None:
        while self._waiting and self._may_admit():
            admitted = self._next()
            if not admitted.done():
                self._admit()
                admitted.set_result(None)

    def _next(self) -> asyncio.Future[None]:
        """The request whose turn it is."""
        tenant_id, requests = next(iter(self._waiting.items()))
        request = requests.popleft()
        self.waiting -= 1
        self._left_in_turn -= 1
        if not requests:
            del self._waiting[tenant_id]
        elif self._left_in_turn <= 0:
            self._waiting.move_to_end(tenant_id)
        else:
            return request
        if self._waiting:
            self._left_in_turn = self._weight(next(iter(self._waiting)))
        return request

    def _weight(self, tenant_id: str) -> int:
        return max(1, self._weights.get(tenant_id, 1))

    def _retry_after_s(self) -> float:
        if len(self._done_at_s) < 2:
            return _RETRY_FIRST_S
        took_s = asyncio.get_running_loop().time() - self._done_at_s[0]
        expected_s = self.waiting * took_s / len(self._done_at_s)
        return min(max(expected_s, _RETRY_FIRST_S), _RETRY_LAST_S)
