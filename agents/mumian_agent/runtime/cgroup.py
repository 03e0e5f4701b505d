"""Where the kernel can keep the limits of tasks: a part of cgroup v2 that is delegated to the agent.

https://docs.kernel.org/admin-guide/cgroup-v2.html: a cgroup that gives controllers to those below it has no
processes of its own. So the agent must be in one of its own below what is delegated, beside those of the
tasks: systemd puts it there by `DelegateSubgroup`.
"""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_CONTROLLERS = frozenset({"cpu", "memory"})


class NotDelegatedError(Exception):
    """The agent may not make cgroups for its tasks, and why."""


def delegated(cgroups: Path = CGROUPS, own: Path = OWN) -> Path:
    """The folder in which this process may make a cgroup for each task.

    Raises:
        NotDelegatedError: there is none.
    """
    if not (cgroups / "cgroup.controllers").exists():
        raise NotDelegatedError(f"no cgroup v2 is mounted at {cgroups}")
    paths = [line.partition("::")[2] for line in own.read_text().splitlines() if line.startswith("0::")]
    if not paths or paths[0] == "/":
        raise NotDelegatedError("the agent is in the root cgroup")
    folder = cgroups / Path(paths[0]).parent.relative_to("/")
    missing = _CONTROLLERS - set(_read(folder / "cgroup.controllers").split())
    if missing:
        raise NotDelegatedError(f"{folder} has no controller {' and '.join(sorted(missing))}")
    for name in ("", "cgroup.procs", "cgroup.subtree_control"):
        if not os.access(folder / name, os.W_OK):
            raise NotDelegatedError(f"{folder / name} cannot be written by this user")
    if _read(folder / "cgroup.procs").strip():
        raise NotDelegatedError(f"{folder} has processes of its own")
    return folder


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise NotDelegatedError(f"{file} cannot be read: {error.strerror}") from None
