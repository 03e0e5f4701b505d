"""The folders of tasks: made before a task starts, from what its tenant has uploaded; emptied at its end."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from weakref import WeakValueDictionary

from mumian.agent.v1.agent_pb2 import AgentReport, LogChunk, ReadOutput, RunAllocation
from mumian.archives import ArchiveError

from mumian_agent.agent.ports import BundleGoneError, BundleSource, ReportSink
from mumian_agent.domain.allocation import AllocationKey, key_of
from mumian_agent.runtime import task_folder
from mumian_agent.runtime.journal import Journal
from mumian_agent.runtime.task_folder import Bundles

log = logging.getLogger(__name__)

OUTPUT_PIECE_BYTES = 512 * 1024


class TaskFolders:
    """Of one site, below its state folder."""

    def __init__(self, state_dir: Path, journal: Journal, source: BundleSource) -> None:
        self._bundles, self._journal, self._source = Bundles(state_dir / "bundles"), journal, source
        self._fetching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by hash

    async def make(self, run: RunAllocation) -> str:
        """The folder of a task, filled; empty where it wants none.

        Raises:
            BundleAwayError: what it wants cannot be had now.
            BundleGoneError: what it wants cannot be had, or cannot be unpacked here.
        """
        if not task_folder.is_wanted(run.task_group):
            return ""
        folder = self._journal.work_dir(key_of(run))
        if not folder.exists():
            try:
                bundle = await self._bundle(run) if run.task_group.command.HasField("bundle") else None
                await asyncio.to_thread(task_folder.fill, folder, run, bundle)
            except (ArchiveError, OSError) as error:
                raise BundleGoneError(f"its folder cannot be made: {error}") from error
        return str(folder)

    async def clear(self, run: RunAllocation) -> tuple[int, str]:
        """A task has ended: keep its outputs, and nothing else. Their packed size, and what went wrong."""
        key = key_of(run)
        folder = self._journal.work_dir(key)
        if not folder.exists():
            outputs = self._journal.outputs(key)
            return (outputs.stat().st_size if outputs.exists() else 0), ""
        size_bytes, fault = 0, ""
        try:
            size_bytes = await asyncio.to_thread(
                task_folder.keep_outputs, folder, run, self._journal.outputs(key)
            )
        except (ArchiveError, OSError) as error:
            fault = f"outputs are not kept: {error}"
            log.warning("%s: %s", key, fault)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return size_bytes, fault

    async def read_output(self, read: ReadOutput, key: AllocationKey | None, reports: ReportSink) -> None:
        """Answer with a piece of what a task has left."""
        chunk = LogChunk(read_id=read.read_id, end=True)
        try:
            if key is None:
                raise FileNotFoundError
            chunk.data = await asyncio.to_thread(_piece, self._journal.outputs(key), read.offset_bytes)
        except OSError:
            chunk.error = "the site does not keep them any more; it keeps the newest only"
        await reports.put_log(AgentReport(log_chunk=chunk))

    async def _bundle(self, run: RunAllocation) -> Path:
        wanted = run.task_group.command.bundle.sha256
        # Of a job's tasks that start together the first fetches it.
        async with self._fetching.setdefault(wanted, asyncio.Lock()):
            return await self._found_or_fetched(run, wanted)

    async def _found_or_fetched(self, run: RunAllocation, wanted: str) -> Path:
        if (known := await asyncio.to_thread(self._bundles.find, wanted)) is not None:
            return known
        part = await asyncio.to_thread(self._bundles.begin, wanted, str(key_of(run)))
        offset_bytes = 0
        try:
            while data := await self._source.read(run.allocation.id, offset_bytes):
                await asyncio.to_thread(_append, part, data)
                offset_bytes += len(data)
            if not await asyncio.to_thread(self._bundles.finish, part, wanted):
                raise BundleGoneError("what came of its bundle has another hash; submit the job again")
        finally:
            part.unlink(missing_ok=True)
        found = self._bundles.find(wanted)
        assert found is not None
        return found


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def _piece(path: Path, offset_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset_bytes)
        return file.read(OUTPUT_PIECE_BYTES)
