"""When the coordinator has last heard this site, on disk: what must end when the site is cut off goes by it,
whether the agent lives or not.
"""

from __future__ import annotations

import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def now_ns() -> int:
    """A clock that all processes of this machine share, and that goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Contact:
    """The file that the agent writes, and that the supervisors of its tasks read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._boot_id = _BOOT_ID.read_text().strip()
        self._newest_ns = 0

    @property
    def newest_ns(self) -> int:
        """When the coordinator has last heard this agent; 0: never yet."""
        return self._newest_ns

    def heard(self, sent_ns: int) -> None:
        """The coordinator has got what was sent then; what is older than that says nothing."""
        if sent_ns > self._newest_ns:
            self._newest_ns = sent_ns
            scratch = self.path.with_suffix(".new")
            scratch.write_text(f"{self._boot_id} {sent_ns}")
            scratch.replace(self.path)

    def last_ns(self) -> int | None:
        """When it was last heard, by `now_ns`; None: never since the machine was started."""
        try:
            boot_id, sent_ns = self.path.read_text().split()
        except (OSError, ValueError):
            return None
        return int(sent_ns) if boot_id == self._boot_id else None
