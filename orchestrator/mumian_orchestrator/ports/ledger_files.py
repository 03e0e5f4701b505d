"""Where months of the ledger lie that were put away from the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class StoredPage(NamedTuple):
    """A page of the ledger as it was stored."""

    sequence: int  # of its first entry
    data: bytes  # of a LedgerPage


class LedgerFilesError(Exception):
    """A file is not there, or not what was written."""


class LedgerFileWriter(Protocol):
    """A file that is not there yet: nobody reads it before it is whole."""

    def add(self, page: StoredPage) -> None:
        """Behind those before. Raises OSError."""

    def finish(self) -> None:
        """It is whole, and on the disk when this returns.

        Raises:
            LedgerFilesError: there is a file of that month with other pages.
            OSError: it cannot be written.
        """

    def give_up(self) -> None:
        """Leave nothing of it. After `finish`, this does nothing."""


class LedgerFiles(Protocol):
    """One file a month, written once and never changed."""

    def begin(self, month: str) -> LedgerFileWriter:
        """Write a month. Raises OSError."""

    def read(self, month: str, after: int = 0) -> Sequence[StoredPage]:
        """Some pages behind the one with that sequence, in order; none: there are no more.

        Raises:
            LedgerFilesError: the file is not there, or damaged.
        """
