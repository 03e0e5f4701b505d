"""When a caller may be told that something is done, and what it is told when the store does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from mumian.api.v1 import error_pb2

from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.ports.store import TermStore

# A caller is told to try again rather than left to wait for a store that does not answer.
DURABLE_WITHIN_S = 5.0
_LOOKS = 10  # in that time, whether the store says that it is full


class Durability:
    """Waits for the store on behalf of callers."""

    def __init__(self, store: TermStore) -> None:
        self._store = store

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
        for _ in range(_LOOKS):
            waiting = [future for future in futures if not future.done()]
            if not waiting:
                return None
            await asyncio.wait(waiting, timeout=DURABLE_WITHIN_S / _LOOKS)
            if self._store.is_full:
                return _full()
        return unavailable("not stored")

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
