"""Real processes that tests start: each prints a line when it is ready, and is gone when its test ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

READY_WITHIN_S = 180.0
SCRIPTS = Path(sys.executable).parent


class Running:
    """A process in a session of its own, with its output in a file."""

    def __init__(
        self, argv: Sequence[str], folder: Path, name: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment`: what is added to that of the tests."""
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as errors:
            self.process = subprocess.Popen(
                argv,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                text=True,
                env={**os.environ, **(environment or {})},
            )

    def wait_ready(self) -> str:
        """The `ready:` line."""
        assert self.process.stdout is not None
        deadline_s = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline_s:
            readable, _, _ = select.select([self.process.stdout], [], [], 0.5)
            if readable:
                line = self.process.stdout.readline()
                if line.startswith("ready:"):
                    return line.strip()
                if not line:
                    break
        raise AssertionError(f"not ready: {self.process.args!r}\n{self.log.read_text()}")

    def kill(self) -> None:
        """kill -9, as the power button would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=120)

    def sweep(self) -> None:
        """Whatever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def the_process(among: Iterable[psutil.Process], name: str = "") -> psutil.Process | None:
    """The one (of that name), None where there is none yet.

    A child that has not yet become its own program has the name, arguments and environment of its parent:
    of a process and its child the parent is meant. Fails if there are two.
    """
    parents: dict[int, int] = {}
    for process in among:
        with contextlib.suppress(psutil.NoSuchProcess):
            if not name or process.name() == name:
                parents[process.pid] = process.ppid()
    found = [pid for pid, parent in parents.items() if parent not in parents]
    assert len(found) <= 1, f"{len(found)} processes where one is meant: {found}"
    return psutil.Process(found[0]) if found else None


def wait_for_port(endpoint: str) -> None:
    """Wait until somebody listens there (host:port)."""
    host, port = endpoint.split(":")
    deadline_s = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {endpoint}")
