"""A key-value store like etcd, seen from one client: revisions, transactions, leases, watches.

What is above it (the fenced store, the watch that resumes, the election) is written once, and runs on etcd
and in memory. Keys are absolute here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

# What one transaction takes, in operations and in bytes of keys and values (etcd: 1.5 MiB with what is around
# them).
OPERATIONS_MAX = 128
TRANSACTION_BYTES_MAX = 1_400_000


@dataclass(frozen=True, slots=True)
class Put:
    """Store a key; with a lease, until the lease ends."""

    key: str
    value: bytes
    lease_id: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key; or all keys that begin with it, of which the transaction writes none besides."""

    key: str
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key."""

    key: str


Operation = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class CreatedAt:
    """The condition that a key was created at this revision; 0: that it does not exist."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class ModifiedAt:
    """The condition that a key was last written at this revision; 0: that it does not exist."""

    key: str
    revision: int


Condition = CreatedAt | ModifiedAt


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored key."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease_id: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a transaction did. `found` has the entry of each Get that found one, in order."""

    succeeded: bool
    revision: int
    found: Sequence[Entry] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """All entries below a prefix at one revision, in order of their keys."""

    revision: int
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """A key was written, or removed (value None), by the transaction of this revision."""

    key: str
    value: bytes | None
    revision: int


class NoAnswerError(Exception):
    """Nobody answered in time. What was asked may have happened, may yet happen, or never will."""


class NoSpaceError(Exception):
    """The store is full: it reads and deletes, and takes nothing new. Nothing has happened."""


class LeaseEndedError(Exception):
    """A key was to be put on a lease that has ended. Nothing has happened."""


class CompactedError(Exception):
    """The history that was asked for is gone."""


class KeyValue(Protocol):
    """One client's view. Every method makes one attempt, of half a second or so."""

    async def list(self, prefix: str) -> Listing:
        """Everything below a prefix.

        Raises:
            NoAnswerError: nobody answered.
        """

    async def first(self, prefix: str, after: str, count: int) -> Listing:
        """At most so many entries below a prefix, the first of those behind a key.

        Raises:
            NoAnswerError: nobody answered.
        """

    def pages(self, prefix: str) -> AsyncGenerator[Listing, None]:
        """The same in parts, all of one revision, for those who would not hold all of it in memory.

        Raises:
            NoAnswerError: nobody answered, or that revision was compacted meanwhile.
        """

    async def transact(
        self,
        conditions: Sequence[Condition],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
    ) -> Outcome:
        """Do one list of operations if every condition holds, else the other; whole or not at all.

        Raises:
            NoAnswerError: it may have happened, or may still happen.
            NoSpaceError, LeaseEndedError: it has not happened.
        """

    async def grant_lease(self, ttl_s: int) -> int:
        """A new lease; its id. A lease that is not renewed ends, and with it the keys that are put on it.

        Raises:
            NoAnswerError: nobody answered.
            NoSpaceError: none was granted.
        """

    async def renew_lease(self, lease_id: int) -> float:
        """Start a lease's time anew; the seconds that it now has, 0 when it has ended.

        Raises:
            NoAnswerError: it may have been renewed.
        """

    async def revoke_lease(self, lease_id: int) -> None:
        """End a lease and remove its keys.

        Raises:
            NoAnswerError: it may have ended.
        """

    async def compact(self, revision: int) -> None:
        """Forget the history before a revision; what is stored stays. Repeating it changes nothing.

        Raises:
            NoAnswerError: it may have happened.
        """

    def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[Sequence[KeyEvent], None]:
        """What happens below a prefix from a revision on, in order; a revision is never split. Ends only with
        an error.

        Raises:
            NoAnswerError: the connection broke.
            CompactedError: history before `from_revision` (1 or later) is gone, and with it maybe its own.
        """
