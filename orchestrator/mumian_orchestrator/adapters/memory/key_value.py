"""The key-value port in memory: one cluster that several clients share, for simulations and tests."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol, TypeVar

from mumian_orchestrator.ports.key_value import (
    OPERATIONS_MAX,
    CompactedError,
    Condition,
    CreatedAt,
    Delete,
    Entry,
    Get,
    KeyEvent,
    LeaseEndedError,
    Listing,
    NoSpaceError,
    Operation,
    Outcome,
    Put,
)

T = TypeVar("T")


class Network(Protocol):
    """What lies between one client and the cluster. A simulation loses, delays and repeats calls here."""

    async def call(self, method: str, apply: Callable[[], T]) -> T:
        """Carry one request there and its answer back. `apply` is what it does to the cluster: never run if
        the request is lost, run later if it is late, run and not told if the answer is lost.

        Raises:
            NoAnswerError: no answer came in time.
        """


class GoodNetwork:
    """Every request arrives at once, and so does its answer."""

    async def call(self, method: str, apply: Callable[[], T]) -> T:  # noqa: ARG002
        """Let others run in between, as a real call would."""
        await asyncio.sleep(0)
        return apply()


class MemoryCluster:
    """The state that etcd would hold, with its rules; every method happens at one instant."""

    def __init__(self) -> None:
        self.revision = 1
        self.entries: dict[str, Entry] = {}
        self.is_full = False  # set it, and the cluster behaves as etcd does at its quota
        self._history: list[KeyEvent] = []
        self._compacted_revision = 0
        self._leases: dict[int, tuple[int, asyncio.TimerHandle]] = {}
        self._lease_ids = itertools.count(1)
        self._grown = asyncio.Event()

    def list(self, prefix: str) -> Listing:
        """Everything below a prefix, in order of the keys."""
        return Listing(
            self.revision, [e for key, e in sorted(self.entries.items()) if key.startswith(prefix)]
        )

    def transact(
        self, conditions: Sequence[Condition], success: Sequence[Operation], failure: Sequence[Operation]
    ) -> Outcome:
        """Do one list of operations or the other, whole or not at all."""
        succeeded = all(self._holds(condition) for condition in conditions)
        operations = success if succeeded else failure
        written = [operation.key for operation in operations if not isinstance(operation, Get)]
        if len(operations) > OPERATIONS_MAX or len(set(written)) < len(written):
            raise ValueError(
                f"operations ({len(operations)}) must be at most {OPERATIONS_MAX}, each key once"
            )
        puts = [operation for operation in operations if isinstance(operation, Put)]
        if puts and self.is_full:
            raise NoSpaceError("the cluster in memory is full")
        for put in puts:
            if put.lease_id and put.lease_id not in self._leases:
                raise LeaseEndedError(f"lease {put.lease_id} of {put.key} has ended")
        found: list[Entry] = []
        events: list[KeyEvent] = []
        for operation in operations:
            match operation:
                case Get():
                    if operation.key in self.entries:
                        found.append(self.entries[operation.key])
                case Delete():
                    for key in self._named(operation):
                        del self.entries[key]
                        events.append(KeyEvent(key, None, self.revision + 1))
                case Put():
                    old = self.entries.get(operation.key)
                    created = old.create_revision if old else self.revision + 1
                    entry = Entry(
                        operation.key, operation.value, created, self.revision + 1, operation.lease_id
                    )
                    self.entries[operation.key] = entry
                    events.append(KeyEvent(operation.key, operation.value, self.revision + 1))
        self._happened(events)
        return Outcome(succeeded, self.revision, found)

    def _named(self, delete: Delete) -> Sequence[str]:
        if delete.is_prefix:
            return sorted(key for key in self.entries if key.startswith(delete.key))
        return [delete.key] if delete.key in self.entries else []

    def compact(self, revision: int) -> None:
        """Forget history before a revision; what is stored stays."""
        self._compacted_revision = max(self._compacted_revision, min(revision, self.revision))
        self._history = [event for event in self._history if event.revision >= self._compacted_revision]

    def grant_lease(self, ttl_s: int) -> int:
        """A new lease; its id."""
        if self.is_full:
            raise NoSpaceError("the cluster in memory is full")
        lease_id = next(self._lease_ids)
        self._leases[lease_id] = (ttl_s, self._timer(lease_id, ttl_s))
        return lease_id

    def renew_lease(self, lease_id: int) -> float:
        """Start a lease's time anew; the seconds that it now has, 0 when it has ended."""
        if lease_id not in self._leases:
            return 0.0
        ttl_s, timer = self._leases[lease_id]
        timer.cancel()
        self._leases[lease_id] = (ttl_s, self._timer(lease_id, ttl_s))
        return float(ttl_s)

    def revoke_lease(self, lease_id: int) -> None:
        """End a lease and remove its keys."""
        if lease_id in self._leases:
            _, timer = self._leases.pop(lease_id)
            timer.cancel()
            bound = sorted(key for key, entry in self.entries.items() if entry.lease_id == lease_id)
            for key in bound:
                del self.entries[key]
            self._happened([KeyEvent(key, None, self.revision + 1) for key in bound])

    def history(self, prefix: str, from_revision: int) -> Sequence[KeyEvent]:
        """What has happened below a prefix from a revision on."""
        if from_revision < self._compacted_revision:
            raise CompactedError(f"history before revision {self._compacted_revision} is compacted")
        begin = len(self._history)
        while begin and self._history[begin - 1].revision >= from_revision:
            begin -= 1
        return [event for event in self._history[begin:] if event.key.startswith(prefix)]

    @property
    def grown(self) -> asyncio.Event:
        """Set when something happens that has not happened yet."""
        return self._grown

    def _happened(self, events: Sequence[KeyEvent]) -> None:
        if events:
            self.revision += 1
            self._history.extend(events)
            self._grown.set()
            self._grown = asyncio.Event()

    def _holds(self, condition: Condition) -> bool:
        entry = self.entries.get(condition.key)
        if isinstance(condition, CreatedAt):
            return condition.revision == (entry.create_revision if entry else 0)
        return condition.revision == (entry.mod_revision if entry else 0)

    def _timer(self, lease_id: int, ttl_s: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(ttl_s, self.revoke_lease, lease_id)


class MemoryKeyValue:
    """One client of a cluster in memory, by its own network."""

    def __init__(self, cluster: MemoryCluster, network: Network | None = None) -> None:
        self._cluster = cluster
        self._network: Network = network or GoodNetwork()

    async def list(self, prefix: str) -> Listing:
        """Everything below a prefix at one revision."""
        return await self._network.call("list", lambda: self._cluster.list(prefix))

    async def first(self, prefix: str, after: str, count: int) -> Listing:
        """At most so many entries below a prefix, the first of those behind a key."""
        listing = await self.list(prefix)
        return Listing(listing.revision, [entry for entry in listing.entries if entry.key > after][:count])

    async def pages(self, prefix: str) -> AsyncGenerator[Listing, None]:
        """The same in one part."""
        yield await self.list(prefix)

    async def transact(
        self,
        conditions: Sequence[Condition],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
    ) -> Outcome:
        """One attempt of a transaction."""
        return await self._network.call(
            "transact", lambda: self._cluster.transact(conditions, success, failure)
        )

    async def grant_lease(self, ttl_s: int) -> int:
        """A new lease; its id."""
        return await self._network.call("grant_lease", lambda: self._cluster.grant_lease(ttl_s))

    async def renew_lease(self, lease_id: int) -> float:
        """Start a lease's time anew; the seconds that it now has, 0 when it has ended."""
        return await self._network.call("renew_lease", lambda: self._cluster.renew_lease(lease_id))

    async def revoke_lease(self, lease_id: int) -> None:
        """End a lease and remove its keys."""
        await self._network.call("revoke_lease", lambda: self._cluster.revoke_lease(lease_id))

    async def compact(self, revision: int) -> None:
        """Forget the history before a revision."""
        await self._network.call("compact", lambda: self._cluster.compact(revision))

    async def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[Sequence[KeyEvent], None]:
        """What happens below a prefix from a revision on; a call that gets no answer ends it."""
        next_revision = from_revision
        while True:
            look = functools.partial(self._look, prefix, next_revision)
            revision, grown, events = await self._network.call("watch", look)
            if events:
                yield events
            next_revision = max(next_revision, revision + 1)
            await grown.wait()

    def _look(self, prefix: str, from_revision: int) -> tuple[int, asyncio.Event, Sequence[KeyEvent]]:
        events = self._cluster.history(prefix, from_revision)
        return self._cluster.revision, self._cluster.grown, events
