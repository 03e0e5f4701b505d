"""Whether a task of a service is ready, and whether it stays well: asked by a command, TCP or HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from mumian.api.v1.job_pb2 import HealthCheck, TaskGroup

INTERVAL_MS, TIMEOUT_MS, FAILURES, GRACE_MS = 10_000, 2_000, 3, 60_000
# Until it is ready it is asked more often: who waits for it ought not to wait for the interval.
_TRY_FIRST_S, _TRY_LAST_S = 0.02, 0.5
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})")
_WORDS_MAX = 200


class Probe(Protocol):
    """One way to ask a task how it is."""

    async def fault(self) -> str:
        """Why it is not well; empty: it is. May take for ever."""
        ...


class TcpProbe:
    """Well is what accepts a connection."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def fault(self) -> str:
        """Why it does not accept."""
        try:
            _, writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            return f"port {self._port} does not accept: {(error.strerror or str(error)).lower()}"
        writer.close()
        return ""


class HttpProbe:
    """Well is what answers a GET with a status of 200 to 399."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self._host, self._port, self._path = host, port, path

    async def fault(self) -> str:
        """What it answers instead."""
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            return f"GET {self._path} finds no server: {(error.strerror or str(error)).lower()}"
        try:
            head = (
                f"GET {self._path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode())
            first = await reader.readline()
        except (OSError, ValueError) as error:  # ValueError: a line without an end
            return f"GET {self._path} breaks off: {error}"
        finally:
            writer.close()
        status = _STATUS_LINE.match(first)
        if status is None:
            return f"GET {self._path} is not answered by HTTP"
        return "" if 200 <= int(status[1]) < 400 else f"GET {self._path} answers {int(status[1])}"


class CommandProbe:
    """Well is what a command beside the task ends with status 0 about."""

    def __init__(
        self, argv: list[str], environment: Mapping[str, str], folder: str | None, name: str = ""
    ) -> None:
        """`name` is what the task's people call it, where what is executed begins with something else."""
        self._argv, self._environment, self._folder = argv, environment, folder
        self._name = name or argv[0]

    async def fault(self) -> str:
        """Its exit status and the last line that it wrote."""
        try:
            asked = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._folder,
                env=dict(self._environment),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return f"{self._name} cannot be executed: {getattr(error, 'strerror', None) or error}"
        assert asked.stdout is not None
        try:
            # Of a command that floods, only the end is kept.
            last = b""
            while piece := await asked.stdout.read(4096):
                last = (last + piece)[-4096:]
            status = await asked.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(asked.pid, signal.SIGKILL)
        if status == 0:
            return ""
        said = last.decode(errors="replace").strip().rpartition("\n")[2][:_WORDS_MAX]
        return f"{self._name} exits with status {status}{f': {said}' if said else ''}"


class EveryPort:
    """Well is what accepts on all its ports."""

    def __init__(self, host: str, numbers: list[int]) -> None:
        self._probes = [TcpProbe(host, number) for number in numbers]

    async def fault(self) -> str:
        """Of the first port that does not accept."""
        for probe in self._probes:
            if fault := await probe.fault():
                return fault
        return ""


class Health:
    """Watches one start of a task."""

    def __init__(self, check: HealthCheck | None, probe: Probe) -> None:
        """Without a check, the probe is asked until the task is ready, and then no more."""
        self._probe, self._is_watched = probe, check is not None
        given = check or HealthCheck()
        self._interval_s = (given.interval_ms or INTERVAL_MS) / 1000
        self._timeout_s = (given.timeout_ms or TIMEOUT_MS) / 1000
        self._failures = given.failures or FAILURES
        self._grace_s = (given.grace_ms or GRACE_MS) / 1000 if self._is_watched else float("inf")

    async def until_ready(self) -> str:
        """Return when the task is ready, with nothing; or when its grace is over, with the reason."""
        begun_s, delay_s = time.monotonic(), _TRY_FIRST_S
        while fault := await self._ask():
            if time.monotonic() - begun_s >= self._grace_s:
                return f"not ready {self._grace_s:g} s after its start: {fault}"
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _TRY_LAST_S)
        return ""

    async def until_unwell(self, tell: Callable[[str], Awaitable[None]]) -> str:
        """Return when a ready task has failed too often in a row, with the reason.

        Args:
            tell: called with the fault when it changes; empty: it is well again.
        """
        if not self._is_watched:
            await asyncio.get_running_loop().create_future()
        failed, told = 0, ""
        while True:
            await asyncio.sleep(self._interval_s)
            fault = await self._ask()
            failed = failed + 1 if fault else 0
            if failed >= self._failures:
                return f"its health check failed {failed} times in a row: {fault}"
            if fault != told:
                told = fault
                await tell(fault)

    async def _ask(self) -> str:
        try:
            async with asyncio.timeout(self._timeout_s if self._is_watched else None):
                return await self._probe.fault()
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"


def health_of(
    group: TaskGroup,
    host: str,
    numbers: Mapping[str, int],
    environment: Mapping[str, str],
    folder: str | None,
    beside: Callable[[list[str]], list[str]] = list,
) -> Health:
    """How a task of this group is asked, one that listens on these ports.

    Args:
        numbers: by the port's name, in the group's order.
        environment: of the task, with its ports.
        folder: where the task runs; None: where this process does.
        beside: makes a command run where the task does, if that is not on the node itself.
    """
    if not group.HasField("health_check"):
        return Health(None, EveryPort(host, list(numbers.values())))
    check = group.health_check
    probe: Probe
    if check.HasField("command"):
        asked = list(check.command.argv)
        probe = CommandProbe(beside(asked), environment, folder, asked[0])
    else:
        number = numbers[check.port or next(iter(numbers))]
        is_http = check.HasField("http_path")
        probe = HttpProbe(host, number, check.http_path) if is_http else TcpProbe(host, number)
    return Health(check, probe)
