"""What this machine has and uses: read by psutil, limited by the configuration."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterable
from typing import NamedTuple

import psutil

from mumian_agent.domain.config import NodeConfig

_MIB = 1024 * 1024
_ARCHS = {"amd64": "x86_64", "aarch64": "arm64"}


class Usage(NamedTuple):
    """What is used now."""

    cpu_milli: int
    memory_mib: int


def arch() -> str:
    """The machine's architecture as jobs spell it: x86_64, arm64."""
    machine = platform.machine().lower()
    return _ARCHS.get(machine, machine)


class Machine:
    """A whole machine, or the slice of it that a limit makes a site of its own."""

    def __init__(self, config: NodeConfig) -> None:
        cores_milli = len(os.sched_getaffinity(0)) * 1000
        total_mib = psutil.virtual_memory().total // _MIB
        self.cpu_milli = min(config.cpu_milli_limit or cores_milli, cores_milli)
        self.memory_mib = min(config.memory_mib_limit or total_mib, total_mib)
        self._is_slice = config.cpu_milli_limit is not None
        self._cpu_s_of: dict[tuple[int, float], float] = {}
        self._sampled_s = time.monotonic()
        psutil.cpu_percent()  # the first call only sets the mark

    def usage(self, own: Iterable[psutil.Process]) -> Usage:
        """The use since the last call: of all processes, or for a slice of the given `own`."""
        if self._is_slice:
            return self._usage_of(own)
        busy = psutil.cpu_percent() / 100
        memory = psutil.virtual_memory()
        return Usage(round(busy * self.cpu_milli), (memory.total - memory.available) // _MIB)

    def _usage_of(self, processes: Iterable[psutil.Process]) -> Usage:
        now_s = time.monotonic()
        cpu_s_of: dict[tuple[int, float], float] = {}
        used_s, memory_bytes = 0.0, 0
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                identity = (process.pid, process.create_time())
                times = process.cpu_times()
                cpu_s_of[identity] = times.user + times.system
                used_s += cpu_s_of[identity] - self._cpu_s_of.get(identity, 0.0)
                memory_bytes += process.memory_info().rss
        since_s = max(now_s - self._sampled_s, 0.001)
        self._cpu_s_of, self._sampled_s = cpu_s_of, now_s
        used_milli = min(round(used_s / since_s * 1000), self.cpu_milli)
        return Usage(used_milli, memory_bytes // _MIB)
