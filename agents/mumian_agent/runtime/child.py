"""One child process in a session of its own, with its output in files."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from mumian.api.v1.job_pb2 import Command

from mumian_agent.runtime.log_files import STDERR, STDOUT
from mumian_agent.runtime.process_tree import ProcessId

NOT_FOUND, NOT_EXECUTABLE = 127, 126


class CannotStartError(Exception):
    """There is nothing to run: trying again would not help."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def argv_of(command: Command) -> list[str]:
    """What to execute for a command of the node."""
    if command.entry_point:
        return [sys.executable, "-m", "mumian_agent.runtime.entry_point", command.entry_point]
    return list(command.argv)


def require(command: str, folder: str | None, environment: Mapping[str, str]) -> None:
    """Look whether a command can be executed, where the kernel says so too late.

    Raises:
        CannotStartError: it is not there or not usable.
    """
    path = str(Path(folder or ".", command)) if "/" in command else command
    if shutil.which(path, path=environment.get("PATH")) is not None:
        return
    if "/" in command and Path(path).exists():
        raise _not_executable(command, "Permission denied")
    raise _not_found(command)


def _not_found(command: str) -> CannotStartError:
    advice = "install it there or give its full path"
    return CannotStartError(f"command not found: {command} is not on this node's PATH; {advice}", NOT_FOUND)


def _not_executable(command: str, why: str) -> CannotStartError:
    return CannotStartError(f"command {command} cannot be executed: {why}", NOT_EXECUTABLE)


class Child:
    """A running child. Its end is noticed by the kernel's word, not by looking."""

    def __init__(
        self, argv: list[str], folder: str | None, environment: Mapping[str, str], log_dir: Path
    ) -> None:
        """Start it in a folder; None: in this process's.

        Raises:
            CannotStartError: the command or its working directory is not there or not usable.
        """
        if folder and not Path(folder).is_dir():
            raise CannotStartError(
                f"working_directory ({folder}) is no folder on this node; create it or leave it out",
                NOT_FOUND,
            )
        try:
            log_dir.mkdir(parents=True, exist_ok=True)
            out, err = (log_dir / STDOUT).open("ab"), (log_dir / STDERR).open("ab")
        except OSError as error:
            advice = "make room on the site's disk"
            raise CannotStartError(
                f"its output cannot be written to {log_dir}: {error.strerror}; {advice}", NOT_EXECUTABLE
            ) from None
        with out, err:
            try:
                self._popen = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    cwd=folder,
                    env=dict(environment),
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise _not_found(argv[0]) from None
            except (PermissionError, OSError, ValueError) as error:
                raise _not_executable(argv[0], getattr(error, "strerror", None) or str(error)) from None
        self._started_s, self._ended_s = time.monotonic(), 0.0
        self.id = ProcessId.of(self._popen.pid)
        self.cpu_s = 0.0
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(self._popen.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @property
    def has_ended(self) -> bool:
        """Whether it is gone; its own children may still be there."""
        return self._ended.done()

    @property
    def up_s(self) -> float:
        """How long it has been there, or was."""
        return (self._ended_s or time.monotonic()) - self._started_s

    async def wait(self) -> int:
        """Its exit code; 128 + n after signal n. May be cancelled and called again."""
        return await asyncio.shield(self._ended)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, wait_status, usage = os.wait4(self._popen.pid, 0)
        self._ended_s = time.monotonic()
        code = os.waitstatus_to_exitcode(wait_status)
        self._popen.returncode = code
        self.cpu_s = usage.ru_utime + usage.ru_stime
        self._ended.set_result(code if code >= 0 else 128 - code)
