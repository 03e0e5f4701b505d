"""What a task has written: two files a task, read from the start or near the end, once or as they grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mumian.api.v1.job_service_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT, LogStream

STDOUT, STDERR = "stdout", "stderr"
CHUNK_BYTES_MAX = 64 * 1024
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
    files: dict[str, BinaryIO] = {}
    try:
        while True:
            # Asked before the files are read, so that nothing written before the end is missed.
            last_round = not follow or has_ended()
            silent = True
            for name, stream in _STREAMS.items():
                if name not in files and (log_dir / name).exists():
                    files[name] = _open(log_dir / name, tail_bytes)
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


def _open(path: Path, tail_bytes: int) -> BinaryIO:
    file = path.open("rb", buffering=0)
    if tail_bytes:
        file.seek(max(0, path.stat().st_size - tail_bytes))
    return file
