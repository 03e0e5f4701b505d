"""Folders as one file, and back: a gzipped tar of nothing but files and folders.

The same folder gives the same bytes, so that its hash is its name. What is unpacked stays in its folder: no
link is ever made, and no path leads out.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO

# Of no use elsewhere, and large.
LEFT_OUT = frozenset({".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
_PIECE_BYTES = 1024 * 1024
_RUNNABLE, _PLAIN = 0o755, 0o644


class ArchiveError(ValueError):
    """What cannot be packed, or must not be unpacked, and why."""


def files_below(folder: Path) -> list[Path]:
    """Every file of a folder, relative to it, in order. A link to a file inside counts as that file.

    Raises:
        ArchiveError: a link leads out of the folder or to a folder, or there is something else than a file.
    """
    found = []
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        for name in [*folders, *names]:
            path = Path(here, name)
            if path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(folder.resolve())):
                raise ArchiveError(
                    f"{path} is a link to {path.readlink()}; copy what is meant, or leave it out"
                )
        for name in names:
            path = Path(here, name)
            if not path.is_file():
                raise ArchiveError(f"{path} is no file; leave it out of the folder")
            found.append(path.relative_to(folder))
    return sorted(found)


def pack(folder: Path, files: Iterable[Path], into: IO[bytes]) -> None:
    """Write files of a folder, named relative to it, as one archive."""
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=into, mtime=0, compresslevel=6) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in files:
            with (folder / file).open("rb") as content:
                status = os.fstat(content.fileno())
                entry = tarfile.TarInfo(str(PurePosixPath(*file.parts)))
                entry.size = status.st_size
                entry.mode = _RUNNABLE if status.st_mode & 0o100 else _PLAIN
                try:
                    archive.addfile(entry, content)
                except OSError as error:
                    raise ArchiveError(f"{folder / file} changed while it was packed ({error})") from None


def unpack(archive: IO[bytes], folder: Path, *, bytes_max: int, files_max: int) -> list[Path]:
    """Write what an archive holds below a folder that is there; the files, relative to it.

    Raises:
        ArchiveError: it is damaged, holds something else than files and folders or a path that leads out, or
            is larger than that. What was written before is left.
    """
    written: list[Path] = []
    left_bytes = bytes_max
    try:
        with tarfile.open(fileobj=archive, mode="r|gz") as entries:
            for entry in entries:
                path = _safe(entry)
                if entry.isdir():
                    (folder / path).mkdir(parents=True, exist_ok=True)
                    continue
                left_bytes -= entry.size
                if left_bytes < 0:
                    raise ArchiveError(f"the archive holds more than {bytes_max // 1024**2} MiB")
                if len(written) == files_max:
                    raise ArchiveError(f"the archive holds more than {files_max} files")
                content = entries.extractfile(entry)
                assert content is not None
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(content, out, _PIECE_BYTES)
                target.chmod(_RUNNABLE if entry.mode & 0o100 else _PLAIN)
                written.append(path)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, OSError) as error:
        raise ArchiveError(f"the archive cannot be unpacked: {error}") from error
    return written


def _safe(entry: tarfile.TarInfo) -> Path:
    path = PurePosixPath(entry.name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in entry.name:
        raise ArchiveError(f"the archive holds a path that leads out of its folder: {entry.name!r}")
    if not (entry.isreg() or entry.isdir()):
        raise ArchiveError(f"the archive holds something else than files and folders: {entry.name!r}")
    return Path(*path.parts)
