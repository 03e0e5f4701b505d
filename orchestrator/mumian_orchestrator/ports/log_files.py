"""Where months of a log lie that were put away from the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class StoredPage(NamedTuple):
    """A page of a log as it was stored."""

    sequence: int  # of its first entry
    data: bytes


class LogFilesError(Exception):
    """A file is not there, or not what was written."""


class LogFileWriter(Protocol):
    """A file that is not there yet: nobody reads it before it is whole."""

    def add(self, page: StoredPage) -> None:
        """Behind those before. Raises OSError."""

    def finish(self) -> None:
        """It is whole, and on the disk when this returns.

        Raises:
            LogFilesError: there is a file of that month with other pages.
            OSError: it cannot be written.
        """

    def give_up(self) -> None:
        """Leave nothing of it. After `finish`, this does nothing."""


class LogFiles(Protocol):
    """One file for each month of each log, written once and never changed. Every method blocks."""

    def begin(self, log: str, month: str) -> LogFileWriter:
        """Write a month. Raises OSError."""

    def read(self, log: str, month: str, after: int = 0) -> Iterator[Sequence[StoredPage]]:
        """The pages behind the one with that sequence, in order, some at a time. Each is read once.

        Raises:
            LogFilesError: the file is not there, or damaged.
        """
