"""When a task must end because its site is cut off from the coordinator."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mumian_agent.runtime import contact
from mumian_agent.runtime.contact import Contact
from mumian_agent.runtime.task import Task

_LOOK_EVERY_S = 0.5


class CutOff:
    """The task's `stop_after`, counted from the last contact.

    By the end of `stop_after` the task has ended: the coordinator counts on it, and may start another. So the
    stop begins earlier, by the grace that the task has to end by itself.
    """

    def __init__(self, task: Task) -> None:
        self._stop_after_s = task.run.on_disconnect.stop_after_s
        self.grace_s = min(task.stop_grace_s, self._stop_after_s / 2)
        self.is_over = False
        self._contact = Contact(Path(task.contact))
        # The command to run it is a contact, too.
        self._begun_ns = contact.now_ns()

    @property
    def reason(self) -> str:
        """What the task's tenant is told."""
        return (
            f"the site was cut off from the coordinator: stopped within stop_after ({self._stop_after_s} s) "
            "of the last contact"
        )

    async def wait(self) -> None:
        """Return when the task is to be stopped; never for a task without a stop_after."""
        if not self._stop_after_s:
            await asyncio.get_running_loop().create_future()
        while not self.look():  # noqa: ASYNC110 -- another process writes the file
            await asyncio.sleep(_LOOK_EVERY_S)

    def look(self) -> bool:
        """Whether the task is to be stopped; once it is, it stays so."""
        if self._stop_after_s and not self.is_over:
            silent_s = (contact.now_ns() - (self._contact.last_ns() or self._begun_ns)) / 1e9
            self.is_over = silent_s >= self._stop_after_s - self.grace_s - _LOOK_EVERY_S
        return self.is_over
