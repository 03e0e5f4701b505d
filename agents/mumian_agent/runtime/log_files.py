"""What a task has written: two files a task, read from the start or near the end, once or as they grow.

A file that has grown too large is copied beside itself and cut to nothing: the task goes on writing to it.
The copy before that is forgotten.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mumian.api.v1.job_service_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT, LogStream

STDOUT, STDERR = "stdout", "stderr"
CHUNK_BYTES_MAX = 64 * 1024
# Of each stream: twice so much is kept, and what comes between two looks.
STREAM_BYTES_MAX = 16 * 1024 * 1024
_OLDER = ".1"
_LOOK_EVERY_S = 0.05
_STREAMS: dict[str, LogStream.ValueType] = {STDOUT: LOG_STREAM_STDOUT, STDERR: LOG_STREAM_STDERR}


class LogPiece(NamedTuple):
    """Some bytes of one stream."""

    stream: LogStream.ValueType
    data: bytes


async def read(
    log_dir: Path, tail_bytes: int, has_ended: Callable[[], bool], follow: bool
) -> AsyncIterator[LogPiece]:
    """What both streams hold, in pieces of at most `CHUNK_BYTES_MAX`.

    Args:
        tail_bytes: begin so far before the end of each stream as it is now; 0: at its start.
        has_ended: whether the task writes no more. Followed logs end with it.
        follow: go on with what is written from now on.
    """
    files: dict[str, _Reader] = {}
    try:
        while True:
            # Asked before the files are read, so that nothing written before the end is missed.
            last_round = not follow or has_ended()
            silent = True
            for name, stream in _STREAMS.items():
                if name not in files and (log_dir / name).exists():
                    files[name] = _Reader(log_dir / name, tail_bytes)
                while name in files and (data := files[name].read(CHUNK_BYTES_MAX)):
                    silent = False
                    yield LogPiece(stream, data)
            if last_round:
                return
            if silent:
                await asyncio.sleep(_LOOK_EVERY_S)
    finally:
        for file in files.values():
            file.close()


def rotate(log_dir: Path) -> None:
    """Cut the streams that have grown too large. What is written while it is done may be lost."""
    for name in _STREAMS:
        path = log_dir / name
        if path.exists() and path.stat().st_size > STREAM_BYTES_MAX:
            scratch = path.with_name(f"{name}.new")
            shutil.copyfile(path, scratch)
            scratch.replace(path.with_name(f"{name}{_OLDER}"))
            os.truncate(path, 0)


class _Reader:
    """One stream, over its rotations."""

    def __init__(self, path: Path, tail_bytes: int) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb", buffering=0)
        self._older: BinaryIO | None = None
        older = self._open_older()
        size, older_size = _size(self._file), _size(older) if older else 0
        start = max(0, older_size + size - tail_bytes) if tail_bytes else 0
        self._file.seek(max(0, start - older_size))
        if older is not None and start < older_size:
            older.seek(start)
            self._older = older
        elif older is not None:
            older.close()

    def read(self, length: int) -> bytes:
        """What comes next; empty: nothing for now."""
        if self._older is None and _size(self._file) < self._file.tell():
            # Cut since the last look: the copy has what had not been read of it.
            self._older = self._open_older()
            if self._older is not None:
                self._older.seek(self._file.tell())
            self._file.seek(0)
        if self._older is not None:
            if data := self._older.read(length):
                return data
            self._older.close()
            self._older = None
        return self._file.read(length)

    def close(self) -> None:
        """Read no more."""
        self._file.close()
        if self._older is not None:
            self._older.close()

    def _open_older(self) -> BinaryIO | None:
        try:
            return self._path.with_name(f"{self._path.name}{_OLDER}").open("rb", buffering=0)
        except FileNotFoundError:
            return None


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
