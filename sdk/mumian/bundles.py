"""What goes to a job's tasks as a folder, and what comes back: packed and unpacked here."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mumian.api.v1.job_pb2 import Bundle
from mumian.archives import ArchiveError, files_below, pack, unpack
from mumian.errors import MumianError, invalid_field

PIECE_BYTES = 1024 * 1024
# Kept in memory up to here, then in a file.
_SPOOLED_BYTES = 8 * 1024 * 1024
# More than a site packs for one task.
_OUTPUT_BYTES_MAX, _OUTPUT_FILES_MAX = 1024**3, 100_000


@contextmanager
def packed(folder: Path | str) -> Iterator[tuple[Bundle, IO[bytes]]]:
    """A folder as a bundle, and its bytes.

    Raises:
        MumianError: INVALID_FIELD, there is no such folder or it holds what cannot be packed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise invalid_field("upload", f"({folder}) is no folder; name the one that holds what the tasks need")
    with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as file:
        try:
            pack(folder, files_below(folder), file)
        except (ArchiveError, OSError) as error:
            raise invalid_field("upload", f"({folder}) cannot be packed: {error}") from None
        size_bytes = file.tell()
        file.seek(0)
        digest = hashlib.sha256()
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
        yield Bundle(sha256=digest.hexdigest(), size_bytes=size_bytes), file


def receiving() -> IO[bytes]:
    """An empty file for what comes in pieces, gone when it is closed."""
    return tempfile.SpooledTemporaryFile(_SPOOLED_BYTES)


def unpacked(archive: IO[bytes], folder: Path) -> list[Path]:
    """Write what has come into a folder, which is made if need be; the files, relative to it.

    Raises:
        MumianError: OUTPUT_NOT_FOUND, it is damaged; INVALID_FIELD, the folder cannot be written.
    """
    archive.seek(0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return unpack(archive, folder, bytes_max=_OUTPUT_BYTES_MAX, files_max=_OUTPUT_FILES_MAX)
    except ArchiveError as error:
        raise MumianError("OUTPUT_NOT_FOUND", f"what came of the outputs is unusable: {error}") from None
    except OSError as error:
        raise invalid_field("folder", f"({folder}) cannot be written: {error.strerror}") from None
