"""Bundles that a test gives to an agent, in place of a coordinator."""

from __future__ import annotations

from pathlib import Path

from mumian_agent.agent.ports import BundleAwayError, BundleGoneError
from mumian_agent.agent.task_folders import TaskFolders
from mumian_agent.runtime.journal import Journal

PIECE_BYTES = 1000


class GivenBundles:
    """By allocation; it is away as often as the test says."""

    def __init__(self) -> None:
        self.of: dict[str, bytes] = {}
        self.reads = 0
        self.away = 0

    async def read(self, allocation_id: str, offset_bytes: int) -> bytes:
        self.reads += 1
        if self.away:
            self.away -= 1
            raise BundleAwayError("nobody answers")
        if allocation_id not in self.of:
            raise BundleGoneError(f"the bundle of {allocation_id} is not stored here")
        return self.of[allocation_id][offset_bytes : offset_bytes + PIECE_BYTES]


def folders_of(folder: Path, source: GivenBundles | None = None) -> TaskFolders:
    """Those of the tasks of an agent on this state folder."""
    return TaskFolders(folder, Journal(folder), source or GivenBundles())
