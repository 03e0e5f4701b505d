"""Short-lived asyncio tasks that nobody awaits, kept alive until they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from mumian_orchestrator.ports.store import SupersededError

log = logging.getLogger(__name__)


class TaskSet:
    """asyncio keeps only weak references to tasks; this keeps strong ones and reports what went wrong."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Run to the end, in the background."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        # The end of the term ends this work too; whoever leads next does it again.
        if error is not None and not isinstance(error, SupersededError):
            log.error("defect in a background task", exc_info=error)
