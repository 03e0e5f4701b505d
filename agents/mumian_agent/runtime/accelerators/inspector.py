"""Looks for accelerators by children that have a time limit: a library that hangs must not hang the agent."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mumian_agent.domain.accelerators import Device
from mumian_agent.runtime.accelerators import look
from mumian_agent.runtime.process_tree import ALLOCATION_VARIABLE

WITHIN_S = 10.0
_KILLED_WITHIN_S = 1.0


def _argv(source: str) -> list[str]:
    return [sys.executable, "-P", "-m", "mumian_agent.runtime.accelerators.look", source]


class Inspector:
    """The sources of one machine. What was last seen of a source that fails now stays, all of it faulty."""

    def __init__(
        self,
        sources: Sequence[str] | None = None,
        argv: Callable[[str], list[str]] = _argv,
        within_s: float = WITHIN_S,
    ) -> None:
        """`sources` None: those that the machine has. `argv` gives the command that looks at one."""
        self._sources = look.sources() if sources is None else list(sources)
        self._argv, self.within_s = argv, within_s
        self._devices: dict[str, list[Device]] = {}
        self._hung: dict[str, subprocess.Popen[bytes]] = {}
        self.faults: dict[str, str] = {}  # by source: why it tells nothing now

    @property
    def has_sources(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._sources)

    def devices(self) -> list[Device]:
        """All devices now. Blocks, for at most `within_s` for each source."""
        for source in self._sources:
            fault = self._look(source)
            if fault:
                self.faults[source] = fault
                self._devices[source] = [
                    Device(
                        each.kind, each.product, each.memory_mib, each.power_limit_mw, f"is unknown: {fault}"
                    )
                    for each in self._devices.get(source, [])
                ]
            else:
                self.faults.pop(source, None)
        return [device for source in self._sources for device in self._devices.get(source, [])]

    def _look(self, source: str) -> str:
        """Ask one source; empty, or why it tells nothing."""
        hung = self._hung.pop(source, None)
        if hung is not None and hung.poll() is None:
            self._hung[source] = hung  # not even SIGKILL ends it while the driver has it: no second one
            return f"{source} hangs in its driver (process {hung.pid})"
        child = subprocess.Popen(
            self._argv(source),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            output, _ = child.communicate(timeout=self.within_s)
        except subprocess.TimeoutExpired:
            self._end(source, child)
            return f"{source} has not answered within {self.within_s:g} s"
        return self._take(source, child.returncode, output)

    def _end(self, source: str, child: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        assert child.stdout is not None
        child.stdout.close()
        try:
            child.wait(_KILLED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._hung[source] = child

    def _take(self, source: str, status: int, output: bytes) -> str:
        if status != 0:
            return f"{source} ends with status {status}"
        try:
            document = json.loads(output)
            if isinstance(document, dict):
                return f"{source}: {document.get('error', 'tells nothing')}"
            self._devices[source] = [Device.of(raw) for raw in document]
        except (ValueError, TypeError) as error:
            return f"{source} tells what is not understood: {error}"
        return ""


def is_foreign(pid: int) -> bool:
    """Whether a process is nobody's task. One that cannot be seen is somebody else's."""
    try:
        return f"{ALLOCATION_VARIABLE}=".encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return True
