"""The agent's own machine as one of the site's nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime import log_files
from mumian_agent.runtime.log_files import LogPiece
from mumian_agent.runtime.node_probe import NodeProbe, NodeReading
from mumian_agent.runtime.process_tree import ProcessId


class OwnHost:
    """No actor: what it asks it asks itself. The contact file is the agent's to write."""

    def __init__(self, probe: NodeProbe, address: str) -> None:
        self._probe, self.address, self.contact_path = probe, address, probe.contact_path

    async def read(self) -> NodeReading:
        """The machine now."""
        return await asyncio.to_thread(self._probe.read)

    async def heard(self, clock_ns: int) -> None:
        """Nothing to do: the agent notes its contact itself, and exactly."""

    async def sweep(self, process: ProcessId | None, key: AllocationKey, is_container: bool) -> None:
        """End what is left of a task here."""
        await asyncio.to_thread(self._probe.sweep, process, key, is_container)

    def read_logs(
        self, log_dir: Path, tail_bytes: int, has_ended: Callable[[], bool], follow: bool
    ) -> AsyncIterator[LogPiece]:
        """What a task has written here."""
        return log_files.read(log_dir, tail_bytes, has_ended, follow)
