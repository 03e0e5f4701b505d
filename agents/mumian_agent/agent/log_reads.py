"""What is being read out to the coordinator: logs, and what ended tasks have left."""

from __future__ import annotations

import asyncio

from mumian.agent.v1.agent_pb2 import AgentReport, LogChunk, ReadLogs, ReadOutput

from mumian_agent.agent.allocations import Allocations
from mumian_agent.agent.ports import NodeSilentError, ReportSink
from mumian_agent.agent.site_nodes import SiteNodes
from mumian_agent.agent.task_folders import TaskFolders
from mumian_agent.runtime.journal import Journal


class LogReads:
    """One coroutine for each read, ended with its stream."""

    def __init__(
        self,
        site_id: str,
        allocations: Allocations,
        journal: Journal,
        folders: TaskFolders,
        reports: ReportSink,
        nodes: SiteNodes,
    ) -> None:
        self._folders, self._nodes = folders, nodes
        self._site_id, self._allocations = site_id, allocations
        self._journal, self._reports = journal, reports
        self._reads: dict[int, asyncio.Task[None]] = {}

    def start(self, read: ReadLogs) -> None:
        """Begin to read out; the same read again changes nothing."""
        if read.read_id not in self._reads:
            task = asyncio.create_task(self._read(read))
            self._reads[read.read_id] = task
            task.add_done_callback(lambda _: self._reads.pop(read.read_id, None))

    def start_output(self, read: ReadOutput) -> None:
        """Read out a piece of what a task has left."""
        entry = self._allocations.newest_of(read.allocation_id)
        work = self._folders.read_output(read, entry.key if entry else None, self._reports)
        task = asyncio.create_task(work)
        self._reads[read.read_id] = task
        task.add_done_callback(lambda _: self._reads.pop(read.read_id, None))

    def stop(self, read_id: int) -> None:
        """Nobody listens any more."""
        task = self._reads.get(read_id)
        if task is not None:
            task.cancel()

    def stop_all(self) -> None:
        """The stream has ended."""
        for task in self._reads.values():
            task.cancel()

    async def _read(self, read: ReadLogs) -> None:
        entry = self._allocations.newest_of(read.allocation_id)
        if entry is None:
            error = f"site {self._site_id} has none of it; it ended long ago or never ran there"
            await self._send(LogChunk(read_id=read.read_id, end=True, error=error))
            return
        error = ""
        try:
            node_id = entry.run.allocation.node_id if entry.run else self._nodes.all()[0].id
            node = self._nodes.get(node_id)
            if node is None:
                raise NodeSilentError("its node has left the site, and its logs are there")
            pieces = node.read_logs(
                self._journal.log_dir(entry.key), read.tail_bytes, lambda: not entry.is_live, read.follow
            )
            async for piece in pieces:
                if not await self._send(LogChunk(read_id=read.read_id, stream=piece.stream, data=piece.data)):
                    return
        except NodeSilentError as silence:
            error = str(silence)
        await self._send(LogChunk(read_id=read.read_id, end=True, error=error))

    async def _send(self, chunk: LogChunk) -> bool:
        return await self._reports.put_log(AgentReport(log_chunk=chunk))
