"""Where the coordinator's truth is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Write:
    """One key to put, or to delete when the value is None. Keys are relative to the store's prefix."""

    key: str
    value: bytes | None


class SupersededError(Exception):
    """A newer leader writes now; nothing of this commit has been stored, and nothing of this term will be."""


class Store(Protocol):
    """A durable map, written by one leader at a time."""

    async def load(self) -> Mapping[str, bytes]:
        """Everything that is stored."""

    async def commit(self, writes: Sequence[Write]) -> None:
        """Store all writes, or none; retried for as long as the store is away.

        Raises:
            SupersededError: this leader's term is over.
        """
