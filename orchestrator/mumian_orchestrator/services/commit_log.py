"""One line of writes to the store: whoever appends waits for its own, neighbours share a transaction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mumian_orchestrator.ports.store import (
    COMMIT_BYTES_MAX,
    COMMIT_WRITES_MAX,
    LeaderStore,
    SupersededError,
    Write,
)
from mumian_orchestrator.services.failpoints import Failpoint, reach

# What may be added to the writes of a caller, at most.
_RIDERS_MAX, _RIDERS_BYTES_MAX = 2, 16_384


def _nothing(_: Sequence[Write]) -> Sequence[Write]:
    return ()


@dataclass(frozen=True, slots=True)
class _Append:
    """Writes that belong together, and who is to know that they are durable."""

    writes: Sequence[Write]
    size_bytes: int
    then: Callable[[], None] | None
    done: asyncio.Future[None]


class CommitLog:
    """Writes become durable in the order in which they were appended.

    The services change their memory first and append at once, with no await between, so memory and log
    never disagree in order. What leaves the process (an answer, a command to an agent) waits for the
    append's future. When the term ends, memory is thrown away with it.
    """

    # A transaction takes no more; what a caller appends together is never split.
    batch_writes_max = COMMIT_WRITES_MAX

    def __init__(self, store: LeaderStore) -> None:
        self._store = store
        self._waiting: deque[_Append] = deque()
        # When each of those that wait was appended; those in the commit under way come first.
        self._appended_s: deque[float] = deque()
        self._arrived = asyncio.Event()
        self._is_over = False
        # What is to become durable together with these writes: the audit log's entry on them.
        self.ride_along: Callable[[Sequence[Write]], Sequence[Write]] = _nothing

    def append(self, writes: Sequence[Write], then: Callable[[], None] | None = None) -> asyncio.Future[None]:
        """Make writes durable together; no writes at all make a barrier behind everything before.

        Args:
            then: called once they are durable, before anybody can see that the future is done.

        Raises:
            ValueError: more than one transaction takes; a store that refuses for ever would hold up all.
        """
        size_bytes = _size_bytes(writes)
        if len(writes) > COMMIT_WRITES_MAX or size_bytes > COMMIT_BYTES_MAX:
            raise ValueError(
                f"writes ({len(writes)}, {size_bytes} bytes) that belong together must be at most "
                f"{COMMIT_WRITES_MAX} and {COMMIT_BYTES_MAX} bytes"
            )
        done = asyncio.get_running_loop().create_future()
        if self._is_over:
            _fail([done])
        else:
            riders = self.ride_along(writes) if writes else ()
            has_room = len(writes) + _RIDERS_MAX <= COMMIT_WRITES_MAX
            if riders and not (has_room and size_bytes + _RIDERS_BYTES_MAX <= COMMIT_BYTES_MAX):
                self.append(riders)  # just before: what is full takes nobody along
            elif riders:
                writes = [*writes, *riders]
                size_bytes += _size_bytes(riders)
            self._waiting.append(_Append(writes, size_bytes, then, done))
            self._appended_s.append(asyncio.get_running_loop().time())
            self._arrived.set()
        return done

    @property
    def waiting(self) -> int:
        """How many appends are not durable yet."""
        return len(self._appended_s)

    @property
    def oldest_wait_s(self) -> float:
        """How long the oldest of them has waited."""
        return asyncio.get_running_loop().time() - self._appended_s[0] if self._appended_s else 0.0

    async def run(self) -> None:
        """Commit what arrives, until cancelled or superseded. What waits then fails with SupersededError;
        whether it was stored, the next leader knows.

        Raises:
            SupersededError: another leader writes.
        """
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    await self._commit_batch()
        finally:
            self._is_over = True
            _fail([append.done for append in self._waiting])

    async def _commit_batch(self) -> None:
        writes: list[Write] = []
        batch: list[_Append] = []
        size_bytes = 0
        while self._waiting:
            first = self._waiting[0]
            size_bytes += first.size_bytes
            is_full = len(writes) + len(first.writes) > self.batch_writes_max or size_bytes > COMMIT_BYTES_MAX
            if batch and is_full:
                break
            self._waiting.popleft()
            writes.extend(first.writes)
            batch.append(first)
        try:
            if writes:
                reach(Failpoint.BEFORE_COMMIT)
                # A key written twice in one batch is one put: etcd refuses duplicates, the last one counts.
                await self._store.commit(list({write.key: write for write in writes}.values()))
                reach(Failpoint.BEFORE_ACKNOWLEDGEMENT)
        except BaseException:
            _fail([append.done for append in batch])
            raise
        for append in batch:
            self._appended_s.popleft()
            if append.then is not None:
                append.then()
            if not append.done.done():
                append.done.set_result(None)


def _fail(futures: Sequence[asyncio.Future[None]]) -> None:
    for done in futures:
        if not done.done():
            done.set_exception(SupersededError("the term is over"))
            done.exception()  # seen: not every append is waited for


def _size_bytes(writes: Sequence[Write]) -> int:
    return sum(write.size_bytes for write in writes)
