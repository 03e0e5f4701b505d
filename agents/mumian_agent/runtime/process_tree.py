"""All processes of one task: found whatever session they moved to, signalled, and metered."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

ALLOCATION_VARIABLE, ATTEMPT_VARIABLE = "MUMIAN_ALLOCATION_ID", "MUMIAN_ATTEMPT"
# The folder of the node that a process was started by: several nodes may share one machine.
NODE_VARIABLE = "MUMIAN_NODE_STATE_DIR"


class ProcessId(NamedTuple):
    """A pid may be used again by another process; with its birth time it is one of a kind."""

    pid: int
    created_s: float

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The identity of a living process.

        Raises:
            psutil.NoSuchProcess: there is none.
        """
        return cls(pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The process, unless it has ended."""
        try:
            process = psutil.Process(self.pid)
            same = process.create_time() == self.created_s and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if same else None


def members(allocation_id: str, attempt: int) -> list[psutil.Process]:
    """The living processes of an attempt.

    They are known by the environment that they were started with and all they start inherits. Sessions and
    parents do not tell: a daemon leaves both behind.
    """
    wanted = {f"{ALLOCATION_VARIABLE}={allocation_id}".encode(), f"{ATTEMPT_VARIABLE}={attempt}".encode()}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                found.append(psutil.Process(int(entry.name)))
    return found


def all_members(node_dir: Path | None = None) -> list[psutil.Process]:
    """The living processes of all tasks of this machine, or of those that the node in that folder started."""
    mark = f"{ALLOCATION_VARIABLE}=".encode()
    of_node = f"{NODE_VARIABLE}={node_dir}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                environment = (entry / "environ").read_bytes()
                if mark in environment and (node_dir is None or of_node in environment.split(b"\0")):
                    found.append(psutil.Process(int(entry.name)))
    return [process for process in found if _is_alive(process)]


def tree_of(root: ProcessId | None, allocation_id: str, attempt: int) -> list[psutil.Process]:
    """The living processes of an attempt, those that wiped their environment included."""
    found = {process.pid: process for process in members(allocation_id, attempt)}
    if root is not None and not _is_used_again(root):
        if process := root.process():
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {each.pid: each for each in (process, *process.children(recursive=True))}
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if pid not in found and os.getsid(pid) == root.pid:
                    found[pid] = psutil.Process(pid)
    return [process for process in found.values() if _is_alive(process)]


def with_descendants(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Processes with all that they and their children have started, by one look at the machine."""
    children: dict[int, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            children[process.ppid()].append(process)
    found = {process.pid: process for process in roots}
    left = list(found)
    while left:
        new = {child.pid: child for child in children[left.pop()] if child.pid not in found}
        found |= new
        left += new
    return list(found.values())


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal each that still lives."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def sweep(root: ProcessId | None, allocation_id: str, attempt: int, within_s: float = 2.0) -> None:
    """SIGKILL the whole tree, again until nothing of it is left: a process may be forking meanwhile."""
    deadline_s = time.monotonic() + within_s
    while left := tree_of(root, allocation_id, attempt):
        send(left, signal.SIGKILL)
        if time.monotonic() > deadline_s:
            return
        time.sleep(0.005)


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """What living processes have used so far, with the children that they have waited for."""
    total_s = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total_s += times.user + times.system + times.children_user + times.children_system
    return total_s


def _is_used_again(root: ProcessId) -> bool:
    """Whether the pid, and so perhaps the session, is a stranger's by now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(root.pid).create_time() != root.created_s
    return False


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
