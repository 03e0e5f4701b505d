"""The folder that a task has of its own: filled before its start; what it leaves is kept after its end."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from mumian.agent.v1.agent_pb2 import RunAllocation
from mumian.api.v1.job_pb2 import TaskGroup
from mumian.archives import ArchiveError, pack, unpack

# Of one bundle when it is unpacked, and of the outputs of one task as they are.
UNPACKED_BYTES_MAX, FILES_MAX = 1024**3, 20_000
OUTPUT_BYTES_MAX = 256 * 1024**2
# Of all packed outputs that the site keeps, and of all bundles: the oldest go first.
OUTPUTS_KEPT_BYTES, BUNDLES_KEPT_BYTES = 2 * 1024**3, 2 * 1024**3
_PIECE_BYTES = 1024 * 1024


def is_wanted(group: TaskGroup) -> bool:
    """Whether a task of the group runs in a folder of its own."""
    return group.command.HasField("bundle") or bool(group.outputs)


class Bundles:
    """Those that this site has, each as it came, by its hash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, sha256: str) -> Path | None:
        """The file of a whole one."""
        path = self._folder / f"{sha256}.tar.gz"
        if not path.exists():
            return None
        path.touch()  # it is used
        return path

    def begin(self, sha256: str, attempt: str) -> Path:
        """An empty file for the pieces of one, nobody else's."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f"{sha256}.{hashlib.sha256(attempt.encode()).hexdigest()[:16]}.part"
        part.write_bytes(b"")
        return part

    def finish(self, part: Path, sha256: str) -> bool:
        """The pieces are complete: keep them if the hash is right."""
        digest = hashlib.sha256()
        with part.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
        if digest.hexdigest() != sha256:
            part.unlink()
            return False
        part.replace(self._folder / f"{sha256}.tar.gz")
        _keep_newest(self._folder, BUNDLES_KEPT_BYTES)
        return True


def fill(folder: Path, run: RunAllocation, bundle: Path | None) -> None:
    """Make a task's folder, at once or not at all; one that is there stays as the task has left it.

    Raises:
        ArchiveError: the bundle cannot be unpacked.
        OSError: the folder cannot be written.
    """
    if folder.exists():
        return
    scratch = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    if bundle is not None:
        with bundle.open("rb") as archive:
            unpack(archive, scratch, bytes_max=UNPACKED_BYTES_MAX, files_max=FILES_MAX)
    (scratch / run.task_group.command.working_directory).mkdir(parents=True, exist_ok=True)
    scratch.replace(folder)


def keep_outputs(folder: Path, run: RunAllocation, into: Path) -> int:
    """Pack what an ended task has left by its job's patterns; the size of the packed file, 0 for none.

    Raises:
        ArchiveError: it is too much.
        OSError: it cannot be read or written; nothing is kept.
    """
    here = folder / run.task_group.command.working_directory
    files = sorted(set(_matching(here, run.task_group.outputs)))
    if not files:
        return 0
    size_bytes = sum((here / file).stat().st_size for file in files)
    if size_bytes > OUTPUT_BYTES_MAX or len(files) > FILES_MAX:
        raise ArchiveError(
            f"outputs ({len(files)} files, {size_bytes / 1024**2:.0f} MiB) are over the limit of "
            f"{FILES_MAX} files and {OUTPUT_BYTES_MAX // 1024**2} MiB"
        )
    into.parent.mkdir(parents=True, exist_ok=True)
    scratch = into.with_suffix(".part")
    try:
        with scratch.open("wb") as file:
            pack(here, files, file)
        scratch.replace(into)
    finally:
        scratch.unlink(missing_ok=True)
    size_bytes = into.stat().st_size
    _keep_newest(into.parent, OUTPUTS_KEPT_BYTES)
    return size_bytes


def _matching(here: Path, patterns: Iterable[str]) -> Iterable[Path]:
    inside = here.resolve()
    for pattern in patterns:
        for path in here.glob(pattern):
            found = [path] if not path.is_dir() else [each for each in path.rglob("*") if not each.is_dir()]
            # A link may lead to what is not the task's to give.
            yield from (
                each.relative_to(here)
                for each in found
                if each.is_file() and each.resolve().is_relative_to(inside)
            )


def _keep_newest(folder: Path, bytes_max: int) -> None:
    left_bytes, found = bytes_max, []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # of another task, which has finished or dropped it
            status = path.stat()
            found.append((status.st_mtime_ns, path, status.st_size))
    for _, path, size_bytes in sorted(found, reverse=True):
        left_bytes -= size_bytes
        if left_bytes < 0 and path.suffix != ".part":
            path.unlink(missing_ok=True)
