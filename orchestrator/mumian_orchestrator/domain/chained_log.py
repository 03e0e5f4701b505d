"""A log that grows for ever: pages in a row, below the month in which they were written, chained by hashes.

The ledger and the audit log are such logs. What is over of them can be put away to files, and stays a part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class ChainBrokenError(Exception):
    """A log is not what was written: where, and how that shows."""


class ChainEnd(NamedTuple):
    """Where a log ends, or a part of it."""

    sequence: int = 0  # of the last entry, from 1
    hash: bytes = b""  # by which the next page is chained to the last one


@dataclass(frozen=True, slots=True)
class ChainedLog:
    """What sets one log apart from another.

    Args:
        name: in the keys of the store, and of its files.
        title: what people call it.
        behind: the end that a page makes behind an end; ChainBrokenError where it does not follow.
    """

    name: str
    title: str
    behind: Callable[[ChainEnd, bytes], ChainEnd]

    @property
    def pages(self) -> str:
        """What the keys of its pages begin with, relative to the store's prefix."""
        return f"log/{self.name}/"

    @property
    def note(self) -> str:
        """The key that says which months were put away."""
        return f"log/{self.name}-put-away"

    def key(self, month: str, sequence: int) -> str:
        """Where a page is stored, by its first entry: keys are in the order of the pages."""
        return f"{self.pages}{month}/{sequence:015d}"
