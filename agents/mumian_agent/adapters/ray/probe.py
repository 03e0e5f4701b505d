"""The actor that is the agent's eyes on another machine of its site."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import yaml

from mumian_agent.adapters.ray.settings import NODE_CONFIG_VARIABLE, temp_dir_of
from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.domain.config import NodeConfig, node_of
from mumian_agent.domain.fields import Fields
from mumian_agent.runtime import log_files
from mumian_agent.runtime.log_files import LogPiece
from mumian_agent.runtime.node_probe import NodeProbe, NodeReading
from mumian_agent.runtime.process_tree import NODE_VARIABLE, ProcessId


def node_config() -> NodeConfig:
    """What the keeper of this machine says of it; nothing, if it was joined by other means."""
    path = os.environ.get(NODE_CONFIG_VARIABLE)
    return node_of(Fields(yaml.safe_load(Path(path).read_text()))) if path else NodeConfig()


class Probe:
    """A worker process of Ray on the machine that it probes."""

    def __init__(self, name: str) -> None:
        folder = Path(os.environ.get(NODE_VARIABLE) or f"/tmp/mumian-node-{name}")
        self._probe = NodeProbe(node_config(), folder, hidden=(folder, temp_dir_of(folder)))
        self._ended: dict[str, asyncio.Event] = {}

    async def contact_path(self) -> str:
        """Where the newest contact with the coordinator is noted."""
        return str(self._probe.contact_path)

    async def read(self) -> NodeReading:
        """The machine now."""
        return await asyncio.to_thread(self._probe.read)

    async def heard(self, clock_ns: int) -> None:
        """The coordinator has heard the site at that time or later, by this machine's clock."""
        self._probe.heard(clock_ns)

    async def sweep(self, process: ProcessId | None, key: AllocationKey, is_container: bool) -> None:
        """End what is left of a task."""
        await asyncio.to_thread(self._probe.sweep, process, key, is_container)

    async def read_logs(
        self, read_id: str, log_dir: str, tail_bytes: int, follow: bool
    ) -> AsyncIterator[LogPiece]:
        """What a task has written here. Followed logs end after `end_logs`."""
        ended = self._ended.setdefault(read_id, asyncio.Event())
        try:
            async for piece in log_files.read(Path(log_dir), tail_bytes, ended.is_set, follow):
                yield piece
        finally:
            self._ended.pop(read_id, None)

    async def end_logs(self, read_id: str) -> None:
        """The task of these logs writes no more."""
        self._ended.setdefault(read_id, asyncio.Event()).set()
