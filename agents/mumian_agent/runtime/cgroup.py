"""Where the kernel can keep the limits of tasks: a part of cgroup v2 that is delegated to the agent.

https://docs.kernel.org/admin-guide/cgroup-v2.html: a cgroup that gives controllers to those below it has no
processes of its own. So the agent must be in one of its own below what is delegated, beside those of the
tasks: systemd puts it there by `DelegateSubgroup`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_CONTROLLERS = frozenset({"cpu", "memory"})
SUBGROUP = "agent"  # DelegateSubgroup of the units in deploy/systemd
_PERIOD_US = 100_000
_EMPTY_WITHIN_S = 2.0


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
    if not paths or Path(paths[0]).name != SUBGROUP:
        # What is above may be somebody else's, although root may write it.
        own_path = paths[0] if paths else "none"
        raise NotDelegatedError(f"the agent's cgroup is {own_path}, not one of its own called {SUBGROUP}")
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


class Cgroup:
    """The cgroup of an attempt's processes: what they take together is bounded, and none gets away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def make(cls, delegated_to: Path, name: str, cpu_milli: int, memory_mib: int) -> Cgroup:
        """One with these limits; 0 is none.

        Raises:
            OSError: the kernel does not take it.
        """
        (delegated_to / "cgroup.subtree_control").write_text("+cpu +memory")
        made = cls(delegated_to / name)
        made._folder.mkdir(exist_ok=True)  # of an earlier start
        made._write("cpu.max", f"{cpu_milli * _PERIOD_US // 1000} {_PERIOD_US}" if cpu_milli else "max")
        made._write("memory.max", str(memory_mib * 1024 * 1024) if memory_mib else "max")
        if memory_mib:
            # To swap would be to take more; and a task without one of its processes is no task.
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                made._write("memory.swap.max", "0")
            made._write("memory.oom.group", "1")
        return made

    def take(self, pids: Iterable[int]) -> None:
        """Take in processes, and so all that they start from now on; those that have ended are no matter."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self._write("cgroup.procs", str(pid))

    def was_over_memory(self) -> bool:
        """Whether the kernel has killed it for its memory."""
        try:
            lines = (self._folder / "memory.events").read_text().splitlines()
        except OSError:
            return False
        return any(line.split()[0] == "oom_kill" and int(line.split()[1]) > 0 for line in lines)

    def end(self) -> None:
        """Kill what is left in it, and remove it."""
        with contextlib.suppress(FileNotFoundError):  # before Linux 5.14
            self._write("cgroup.kill", "1")
        deadline_s = time.monotonic() + _EMPTY_WITHIN_S
        while self._folder.exists():
            try:
                self._folder.rmdir()
            except OSError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.005)

    def _write(self, name: str, value: str) -> None:
        # Never made: a file that the kernel does not show is a control that it does not have.
        with (self._folder / name).open("r+") as file:
            file.write(value)
