"""Months of logs in a folder, which several coordinators share by a network file system.

`<log>-<month>` is a row of blocks; each says where its last page begins and how many bytes follow, which are
its pages, packed, each again behind its sequence and its length. So a reader skips what it does not want.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mumian_orchestrator.adapters.disk.in_place import put_in_place
from mumian_orchestrator.ports.log_files import LogFilesError, LogFileWriter, StoredPage

_FRAME = struct.Struct(">QI")
# Unpacked. Of a larger one, somebody who wants little would unpack much.
_BLOCK_BYTES = 256 * 1024
_READ_ONLY = 0o400


class DiskLogFiles:
    """Every method blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, log: str, month: str) -> LogFileWriter:
        """Write a month."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it tells of all tenants
        return _Writer(self._path(log, month))

    def read(self, log: str, month: str, after: int = 0) -> Iterator[Sequence[StoredPage]]:
        """The pages behind the one with that sequence, block by block."""
        path = self._path(log, month)
        try:
            with path.open("rb") as file:
                while head := file.read(_FRAME.size):
                    last, length = _FRAME.unpack(head)
                    if last <= after:
                        file.seek(length, os.SEEK_CUR)
                        continue
                    block = [page for page in _pages_in(file.read(length)) if page.sequence > after]
                    after = last
                    yield block
        except OSError as error:
            raise LogFilesError(f"{path}: {error.strerror}") from error
        except (struct.error, zlib.error) as error:
            raise LogFilesError(f"{path} is damaged behind entry {after}: {error}") from error

    def _path(self, log: str, month: str) -> Path:
        return self._folder / f"{log}-{month}"


class _Writer:
    """Writes beside the file, and puts it in its place when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        scratch, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
        self._file, self._scratch = os.fdopen(scratch, "wb"), Path(name)
        self._waiting = bytearray()
        self._last = 0

    def add(self, page: StoredPage) -> None:
        """Behind those before."""
        self._waiting += _FRAME.pack(page.sequence, len(page.data)) + page.data
        self._last = page.sequence
        if len(self._waiting) >= _BLOCK_BYTES:
            self._write_block()

    def finish(self) -> None:
        """Make it last, and put it in its place."""
        self._write_block()
        os.fchmod(self._file.fileno(), _READ_ONLY)
        self._file.close()
        if self._path.exists() and not filecmp.cmp(self._scratch, self._path, shallow=False):
            raise LogFilesError(
                f"{self._path} is there already, with other pages; move it away if it is of a store that a "
                "backup has replaced"
            )
        put_in_place(self._scratch, self._path)

    def give_up(self) -> None:
        """Leave nothing of it."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._scratch.unlink()

    def _write_block(self) -> None:
        if self._waiting:
            packed = zlib.compress(self._waiting)
            self._file.write(_FRAME.pack(self._last, len(packed)) + packed)
            self._waiting.clear()


def _pages_in(packed: bytes) -> Iterator[StoredPage]:
    block, start = zlib.decompress(packed), 0
    while start < len(block):
        sequence, length = _FRAME.unpack_from(block, start)
        start += _FRAME.size
        yield StoredPage(sequence, block[start : start + length])
        start += length
