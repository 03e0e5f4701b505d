"""The file of a backup, as those see it who make one or restore it: a header, then every key and value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol


class BackupFileError(Exception):
    """A file that is no backup, or not a whole one; says which and what to do."""


class BackupWriter(AbstractContextManager["BackupWriter"], Protocol):
    """Nobody sees the file before it is whole. Entering the context begins it, leaving it gives up what was
    not finished. Every method raises OSError when it cannot be written.
    """

    keys: int  # so many were recorded

    def header(self, fields: Mapping[str, object]) -> None:
        """What the backup is of; first."""

    def record(self, key: str, value: bytes) -> None:
        """One key."""

    def finish(self) -> None:
        """The end; the file is there, whole and on the disk, when this returns."""


class BackupReader(Protocol):
    """A file that is read twice: `check` before anything is believed, then `records`."""

    name: str

    def check(self) -> tuple[Mapping[str, object], int]:
        """The header, and the number of keys, of a file whose checksum is right.

        Raises:
            BackupFileError: it is no backup, of another version, cut short, or changed.
        """

    def records(self) -> Iterator[tuple[str, bytes]]:
        """Every key and value.

        Raises:
            BackupFileError: as `check`; what came before it was of a broken file.
        """
