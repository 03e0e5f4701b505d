"""The file of a backup: a header, every key, and a checksum over both, written and read in one pass.

    mumian-backup 1\\n
    {"created": ..., "revision": ..., "term_base": ...}\\n
    one record for each key: its length and the value's (4 bytes each, big-endian), key, value
    eight zero bytes, the number of records (8 bytes), SHA-256 of everything before

Keys are below the platform's prefix and written without it, so that a backup can be restored below another.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from mumian_orchestrator.adapters.disk.in_place import put_in_place
from mumian_orchestrator.ports.backup_file import BackupFileError

FORMAT = b"mumian-backup 1\n"
_HEADER_BYTES_MAX = 64 * 1024
_KEY_BYTES_MAX, _VALUE_BYTES_MAX = 64 * 1024, 64 * 1024 * 1024
_LENGTHS = struct.Struct(">II")
_END = struct.Struct(">IIQ")


class DiskBackupWriter:
    """Writes beside the file and moves it into place when it is whole; a context."""

    def __init__(self, path: Path) -> None:
        self._path, self._scratch = path, path.with_name(f"{path.name}.partial")
        self._digest = hashlib.sha256()
        self.keys = 0

    def __enter__(self) -> DiskBackupWriter:
        self._scratch.unlink(missing_ok=True)
        # All tenants' jobs are in it.
        scratch = os.open(self._scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file: IO[bytes] = os.fdopen(scratch, "wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._scratch.unlink(missing_ok=True)

    def header(self, fields: Mapping[str, object]) -> None:
        """What the backup is of; first."""
        self._write(FORMAT + json.dumps(fields, sort_keys=True).encode() + b"\n")

    def record(self, key: str, value: bytes) -> None:
        """One key."""
        raw = key.encode()
        self._write(_LENGTHS.pack(len(raw), len(value)) + raw + value)
        self.keys += 1

    def finish(self) -> None:
        """The end; the file is there, whole and on the disk, when this returns."""
        self._write(_END.pack(0, 0, self.keys))
        self._file.write(self._digest.digest())
        self._file.close()
        put_in_place(self._scratch, self._path)

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


class DiskBackupReader:
    """Reads a file twice: `check` before anything is believed, then `records`."""

    def __init__(self, path: Path) -> None:
        self._path, self.name = path, path.name

    def check(self) -> tuple[Mapping[str, object], int]:
        """The header, and the number of keys, of a file whose checksum is right.

        Raises:
            BackupFileError: it is no backup, of another version, cut short, or changed.
        """
        with self._open() as file:
            header = self._header(file)
            keys = sum(1 for _ in self._records(file))
        return header, keys

    def records(self) -> Iterator[tuple[str, bytes]]:
        """Every key and value.

        Raises:
            BackupFileError: as `check`; what came before it was of a broken file.
        """
        with self._open() as file:
            self._header(file)
            yield from self._records(file)

    def _open(self) -> IO[bytes]:
        try:
            return self._path.open("rb")
        except OSError as error:
            raise BackupFileError(f"{self._path} cannot be read: {error.strerror}") from error

    def _header(self, file: IO[bytes]) -> Mapping[str, object]:
        begin = file.readline(len(FORMAT))
        if begin != FORMAT:
            if begin.startswith(FORMAT.rsplit(b" ", 1)[0]):
                version = begin.decode(errors="replace").strip()
                raise BackupFileError(
                    f"{self._path} is of another version ({version}); restore it by the release that wrote it"
                )
            raise BackupFileError(f"{self._path} is no backup of Mumian; give one that `backup` has written")
        line = file.readline(_HEADER_BYTES_MAX)
        self._digest = hashlib.sha256(begin + line)
        try:
            header = json.loads(line)
        except ValueError:
            header = None
        if not isinstance(header, dict):
            raise self._broken("its header is unreadable")
        return header

    def _records(self, file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
        count = 0
        while True:
            key_bytes, value_bytes = _LENGTHS.unpack(self._exactly(file, _LENGTHS.size))
            if key_bytes == 0:
                break
            if key_bytes > _KEY_BYTES_MAX or value_bytes > _VALUE_BYTES_MAX:
                raise self._broken(f"record {count} is of an impossible length")
            data = self._exactly(file, key_bytes + value_bytes)
            try:
                key = data[:key_bytes].decode()
            except UnicodeDecodeError:
                raise self._broken(f"the key of record {count} is no text") from None
            yield key, data[key_bytes:]
            count += 1
        (told,) = struct.unpack(">Q", self._exactly(file, 8))
        if file.read(self._digest.digest_size) != self._digest.digest() or told != count or file.read(1):
            raise self._broken("its checksum is wrong")

    def _exactly(self, file: IO[bytes], size: int) -> bytes:
        data = file.read(size)
        if len(data) < size:
            raise self._broken("it ends too early")
        self._digest.update(data)
        return data

    def _broken(self, how: str) -> BackupFileError:
        return BackupFileError(f"{self._path} is damaged: {how}; use another backup")
