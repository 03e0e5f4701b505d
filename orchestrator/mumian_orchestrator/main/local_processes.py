"""Background processes on this machine, remembered in a file so that exactly they can be stopped again."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_POLL_S = 0.02
_STOP_GRACE_S = 20.0
_SWEPT_WITHIN_S, _SWEEP_EVERY_S = 10.0, 0.05
# What is started here, and everything below it, has the state folder under this name in its environment.
_MARK = "MUMIAN_STARTED_IN"
_TASK_MARK = b"MUMIAN_ALLOCATION_ID="


class StartError(Exception):
    """A process that did not become ready, with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class _Record:
    """A process id may be used again by another process; with its birth time it is one of a kind."""

    name: str
    pid: int
    created_s: float

    def process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
            return process if alive and process.create_time() == self.created_s else None
        except psutil.NoSuchProcess:
            return None


class LocalProcesses:
    """The processes of one state folder: their records and their logs."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir.absolute()
        self._file = state_dir / "processes.json"

    def running(self) -> list[str]:
        """The names of those that are alive, in the order in which they were started."""
        return [record.name for record in self._records() if record.process()]

    def ended(self) -> list[str]:
        """The names of those that were started, not stopped, and are not alive any more."""
        return [record.name for record in self._records() if not record.process()]

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other process from starting and stopping here meanwhile.

        Raises:
            StartError: another one is at it.
        """
        self._state_dir.mkdir(parents=True, exist_ok=True)
        with (self._state_dir / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StartError(
                    f"{self._state_dir} is being started or stopped by another process; wait until it is done"
                ) from None
            yield

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self._state_dir / f"{name}.log"

    def start(
        self,
        name: str,
        argv: Sequence[str],
        is_ready: Callable[[str], bool],
        within_s: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start in the background and wait until it is ready.

        Args:
            is_ready: told everything that the process has written so far.
            environment: replaces this process's own.

        Raises:
            StartError: it ended or was not ready in time. It is remembered, so `stop_all` ends it.
        """
        self._state_dir.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("wb") as output:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**(os.environ if environment is None else environment), _MARK: str(self._state_dir)},
            )
        record = _Record(name, child.pid, psutil.Process(child.pid).create_time())
        self._save([*self._records(), record])
        deadline_s = time.monotonic() + within_s
        while not is_ready(self.log(name).read_text(errors="replace")):
            ended = child.poll() is not None
            if ended or time.monotonic() > deadline_s:
                what = (
                    f"ended with status {child.returncode}" if ended else f"was not ready in {within_s:.0f} s"
                )
                last = self.log(name).read_text(errors="replace").strip().splitlines()[-5:]
                raise StartError("\n  ".join([f"{name} {what}; its log is {self.log(name)}:", *last]))
            time.sleep(_POLL_S)

    def stop_all(self) -> list[str]:
        """Stop what was started, newest first, each before the next; returns the names of those stopped.

        An agent's Ray and tasks outlive an agent that has died, by design: they are ended here too.
        """
        stopped = []
        for record in reversed(self._records()):
            process = record.process()
            if process is None:
                continue
            family = _family(process)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
            psutil.wait_procs([process], timeout=_STOP_GRACE_S)
            for left in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()
            psutil.wait_procs(family, timeout=_STOP_GRACE_S)
            stopped.append(record.name)
        self._sweep()
        self._file.unlink(missing_ok=True)
        return stopped

    def _sweep(self) -> None:
        """Kill what is left of it, again until nothing is: it may be forking meanwhile."""
        deadline_s = time.monotonic() + _SWEPT_WITHIN_S
        sessions: set[int] = set()
        while (left := self._left_over(sessions)) and time.monotonic() < deadline_s:
            sessions |= set(left.values())
            for pid in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()
            time.sleep(_SWEEP_EVERY_S)

    def _left_over(self, sessions: set[int]) -> dict[int, int]:
        """What bears the mark, tasks, whose environment is their own, by where they write, and what is in a
        session of either: a process that gives itself a title (Ray's agents do) may write it over the mark.

        Args:
            sessions: those in which something was found before.

        Returns:
            The session of each process, by process id.
        """
        mark, folder = os.fsencode(f"{_MARK}={self._state_dir}"), f"{self._state_dir}/"
        session_of: dict[int, int] = {}
        bearing: set[int] = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            pid = int(entry.name)
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes()
                if not environment:  # it has ended, and nobody has asked how
                    continue
                session_of[pid] = os.getsid(pid)
                is_task = _TASK_MARK in environment and str((entry / "fd/1").readlink()).startswith(folder)
                if is_task or mark in environment.split(b"\0"):
                    bearing.add(pid)
        ours = os.getsid(0)
        sessions = (sessions | {session_of[pid] for pid in bearing}) - {ours}
        return {
            pid: session
            for pid, session in session_of.items()
            if pid != os.getpid() and (pid in bearing or session in sessions)
        }

    def _records(self) -> list[_Record]:
        try:
            return [_Record(**entry) for entry in json.loads(self._file.read_text())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError):
            raise StartError(
                f"{self._file} is damaged; what it named may still run: look for it with "
                f"`pgrep -af {self._state_dir}`, end it, and remove the file"
            ) from None

    def _save(self, records: Sequence[_Record]) -> None:
        scratch = self._file.with_suffix(".new")
        scratch.write_text(json.dumps([dataclasses.asdict(record) for record in records]))
        scratch.replace(self._file)


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
