"""When a task must end because its site is cut off from the coordinator."""

from __future__ import annotations

from pathlib import Path

from mumian_agent.runtime import contact
from mumian_agent.runtime.contact import Contact
from mumian_agent.runtime.task import Task
from mumian_agent.runtime.time_limit import TimeLimit


class CutOff(TimeLimit):
    """The task's `stop_after`, counted from the last contact: by then the coordinator may start another."""

    def __init__(self, task: Task) -> None:
        self._stop_after_s = task.run.on_disconnect.stop_after_s
        super().__init__(min(task.stop_grace_s, self._stop_after_s / 2), is_set=self._stop_after_s > 0)
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

    def _left_s(self) -> float:
        silent_s = (contact.now_ns() - (self._contact.last_ns() or self._begun_ns)) / 1e9
        return self._stop_after_s - silent_s
