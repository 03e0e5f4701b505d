"""Where the coordinator's truth is kept: a durable map with revisions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mumian_orchestrator.ports.key_value import OPERATIONS_MAX, TRANSACTION_BYTES_MAX

# What one commit takes: a transaction, less the store's own commit mark.
COMMIT_WRITES_MAX = OPERATIONS_MAX - 1
COMMIT_BYTES_MAX = TRANSACTION_BYTES_MAX - 1000
# Keys below it are a log: nobody needs them to take over, so `load` leaves them out.
LOG = "log/"


@dataclass(frozen=True, slots=True)
class Write:
    """One key to put, or to delete when the value is None. Keys are relative to the store's prefix.

    `is_prefix` deletes all keys that begin with it; the same commit writes none of them.
    """

    key: str
    value: bytes | None
    is_prefix: bool = False

    @property
    def size_bytes(self) -> int:
        """What it adds to a commit."""
        return len(self.key.encode()) + len(self.value or b"")


@dataclass(frozen=True, slots=True)
class Event:
    """One write that has happened, at the revision of its commit."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """What has happened since the previous change, in order; the writes of one commit are never split.

    `present` is set after a gap that history does not cover any more (it was compacted): `events` are then
    the newest writes of the gap, one for each key, and every key that is not in `present` does not exist.
    """

    events: Sequence[Event]
    present: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is stored at one revision; a watch from `revision + 1` goes on from there."""

    revision: int
    entries: Mapping[str, bytes]


class SupersededError(Exception):
    """The term is over: nothing more of it will be stored. A commit that was under way may have been the last
    one that was, if it got no answer before; the next leader knows.
    """


class HalfRestoredError(Exception):
    """A restore of a backup did not come to its end; nobody may lead with what there is."""


class Store(Protocol):
    """What anybody may do with the store: read."""

    async def load(self) -> Snapshot:
        """Everything that is stored at one revision but the log; waits for as long as the store is away."""

    async def read_log(self, prefix: str) -> Sequence[bytes]:
        """The values below a prefix (which begins with LOG), in order of their keys; waits as `load` does."""

    async def read_log_after(self, prefix: str, after: str, count: int) -> Sequence[tuple[str, bytes]]:
        """At most so many keys below a prefix of the log, the first of those behind a key, with their values;
        waits as `load` does.
        """

    def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[Change, None]:
        """Every write below the prefix from a revision on, without end; each is told exactly once, however
        often the store is away meanwhile. Close the iterator (`aclosing`) when it is not needed any more.
        """


class LeaderStore(Protocol):
    """What the leader of a term may do with it besides, for as long as the term lasts: write."""

    is_full: bool  # whether it refuses to grow; commits wait until an operator has made room

    async def commit(self, writes: Sequence[Write]) -> int:
        """Store all writes, or none; retried for as long as the store is away. Returns the revision.

        Raises:
            SupersededError: this leader's term is over.
            ValueError: more than COMMIT_WRITES_MAX writes or COMMIT_BYTES_MAX bytes, or a key twice.
        """


class TermStore(Store, LeaderStore, Protocol):
    """Both, and history: what the services of a leader are given."""

    @property
    def revision(self) -> int:
        """Of the newest commit."""

    @property
    def lease_left_s(self) -> float:
        """How long the term lasts if its lease is not renewed any more."""

    async def compact(self, revision: int) -> None:
        """Forget history before a revision; what is stored stays. Left for later while the store is away."""
