"""When a caller may be told that something is done, and what it is told when the store does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from mumian.api.v1 import error_pb2

from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.ports.store import TermStore

# A caller is told to try again rather than left to wait for a store that does not answer.
DURABLE_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.5  # whether it is time for that, and whether the store says that it is full


class Durability:
    """Waits for the store on behalf of callers: one timer looks after all of them."""

    def __init__(self, store: TermStore) -> None:
        self._store = store
        # Who waits, and until when: what they are told first, durable (None) or why they are not to wait on.
        self._waiting: dict[asyncio.Future[RequestRefusedError | None], float] = {}
        self._is_looking = False

    async def wait(self, future: asyncio.Future[None]) -> None:
        """Until what was appended is durable.

        Raises:
            RequestRefusedError: STORE_UNAVAILABLE or STORE_FULL.
            SupersededError: the term is over.
        """
        refused = await self.wait_for_all([future])
        if not future.done() and refused is not None:
            raise refused
        future.result()

    async def wait_for_all(self, futures: Collection[asyncio.Future[None]]) -> RequestRefusedError | None:
        """Until all are done; else why those that are not have no answer."""
        until_s = asyncio.get_running_loop().time() + DURABLE_WITHIN_S
        for future in futures:
            if not future.done() and (refused := await self._wait_until(future, until_s)) is not None:
                return refused
        return None

    async def _wait_until(self, future: asyncio.Future[None], until_s: float) -> RequestRefusedError | None:
        told: asyncio.Future[RequestRefusedError | None] = asyncio.get_running_loop().create_future()

        def tell(_: asyncio.Future[None]) -> None:
            if not told.done():
                told.set_result(None)

        self._waiting[told] = until_s
        future.add_done_callback(tell)
        self._look_soon()
        try:
            return await told
        finally:
            del self._waiting[told]

    def _look_soon(self) -> None:
        if self._waiting and not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        """Tell those that are not to wait on."""
        self._is_looking = False
        now_s, is_full = asyncio.get_running_loop().time(), self._store.is_full
        for told, until_s in self._waiting.items():
            if not told.done() and (is_full or until_s <= now_s):
                told.set_result(_full() if is_full else unavailable("not stored"))
        self._look_soon()

    def refuse_when_full(self) -> None:
        """Refuse what would change something.

        Raises:
            RequestRefusedError: STORE_FULL.
        """
        if self._store.is_full:
            raise _full()


def unavailable(what: str) -> RequestRefusedError:
    """The refusal of what the store has not answered in time."""
    advice = f"{what} within {DURABLE_WITHIN_S:.0f} s; try again with the same request_id"
    return RequestRefusedError(error_pb2.ERROR_REASON_STORE_UNAVAILABLE, advice)


def _full() -> RequestRefusedError:
    return RequestRefusedError(
        error_pb2.ERROR_REASON_STORE_FULL,
        "the store is full: it can be read, and takes nothing new. An operator makes room by "
        "`mumian-coordinator defragment`; then try again with the same request_id",
    )
