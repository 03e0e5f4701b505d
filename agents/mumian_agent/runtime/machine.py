"""What one machine has and uses: read by psutil, limited by the configuration."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from mumian_agent.domain.config import NodeConfig
from mumian_agent.domain.foreign_use import ForeignUse
from mumian_agent.runtime import process_tree

_MIB = 1024 * 1024
_ARCHS = {"amd64": "x86_64", "aarch64": "arm64"}
_KBPS_PER_MBPS = 1000
# To tell tasks from other processes takes a look at every process: not at each reading.
_LOOK_AT_OTHERS_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What is used now. CPU and memory that are withheld are not offered: others use them."""

    cpu_milli: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    disk_used_mib: int = 0
    network_kbps: int = 0  # of the fastest link; 0: not known
    network_used_kbps: int = 0
    cpu_milli_withheld: int = 0
    memory_mib_withheld: int = 0


def arch() -> str:
    """The machine's architecture as jobs spell it: x86_64, arm64."""
    machine = platform.machine().lower()
    return _ARCHS.get(machine, machine)


class Machine:
    """A whole machine, or the slice of it that a limit makes a site of its own."""

    def __init__(self, config: NodeConfig, folder: Path = Path("/")) -> None:
        """`folder` is on the file system that tasks write to."""
        cores_milli = len(os.sched_getaffinity(0)) * 1000
        total_mib = psutil.virtual_memory().total // _MIB
        self.cpu_milli = min(config.cpu_milli_limit or cores_milli, cores_milli)
        self.memory_mib = min(config.memory_mib_limit or total_mib, total_mib)
        self._folder = folder
        self._is_slice = config.cpu_milli_limit is not None
        # A slice is the operator's word: what others use of the machine is not taken off it.
        self._others = None if self._is_slice or not config.yields_to_others else ForeignUse()
        self._cpu_s_of: dict[tuple[int, float], float] = {}
        self._tasks_cpu_s_of: dict[tuple[int, float], float] = {}
        self._others_busy_s, self._looked_at_others_s = _busy_s(), time.monotonic()
        if self._others is not None:
            # Memory is known at once; what others use of the processors only after a while.
            self._others.add(0, max(0, self._memory_used_mib()))
        self._sampled_s = time.monotonic()
        self._network_bytes, self._network_s = _network_bytes(), time.monotonic()
        psutil.cpu_percent()  # the first call only sets the mark

    def usage(self, own: Callable[[], Iterable[psutil.Process]]) -> Usage:
        """The use since the last call: of all processes, or for a slice of those that `own` finds."""
        if self._is_slice:
            cpu_milli, memory_mib = self._usage_of(own())
        else:
            cpu_milli = round(psutil.cpu_percent() / 100 * self.cpu_milli)
            memory_mib = self._memory_used_mib()
        cpu_withheld, memory_withheld = self._withheld()
        disk = psutil.disk_usage(str(self._folder))
        return Usage(
            cpu_milli=cpu_milli,
            memory_mib=memory_mib,
            disk_mib=disk.total // _MIB,
            disk_used_mib=disk.used // _MIB,
            network_kbps=_fastest_link_kbps(),
            network_used_kbps=self._network_used_kbps(),
            cpu_milli_withheld=min(cpu_withheld, self.cpu_milli),
            memory_mib_withheld=min(memory_withheld, self.memory_mib),
        )

    def _usage_of(self, processes: Iterable[psutil.Process]) -> tuple[int, int]:
        """Thousandths of a core and MiB."""
        now_s = time.monotonic()
        cpu_s_of, memory_bytes = _cpu_and_memory(processes)
        used_s = _grown(self._cpu_s_of, cpu_s_of)
        since_s = max(now_s - self._sampled_s, 0.001)
        self._cpu_s_of, self._sampled_s = cpu_s_of, now_s
        return min(round(used_s / since_s * 1000), self.cpu_milli), memory_bytes // _MIB

    def _withheld(self) -> tuple[int, int]:
        """What processes that are nobody's task use: thousandths of a core and MiB."""
        if self._others is None:
            return 0, 0
        now_s = time.monotonic()
        since_s = now_s - self._looked_at_others_s
        if since_s >= _LOOK_AT_OTHERS_EVERY_S:
            used_mib, busy_s = self._memory_used_mib(), _busy_s()
            tasks_cpu_s_of, tasks_bytes = _cpu_and_memory(process_tree.all_members())
            others_s = busy_s - self._others_busy_s - _grown(self._tasks_cpu_s_of, tasks_cpu_s_of)
            others_mib = max(0, used_mib - tasks_bytes // _MIB)
            self._others.add(max(0, round(others_s / since_s * 1000)), others_mib)
            self._tasks_cpu_s_of, self._others_busy_s = tasks_cpu_s_of, busy_s
            self._looked_at_others_s = now_s
        return self._others.withheld()

    @staticmethod
    def _memory_used_mib() -> int:
        memory = psutil.virtual_memory()
        return int(memory.total - memory.available) // _MIB

    def _network_used_kbps(self) -> int:
        now_s, now_bytes = time.monotonic(), _network_bytes()
        since_s = max(now_s - self._network_s, 0.001)
        kbps = max(0, now_bytes - self._network_bytes) * 8 / since_s / 1000
        self._network_bytes, self._network_s = now_bytes, now_s
        return round(kbps)


def _cpu_and_memory(processes: Iterable[psutil.Process]) -> tuple[dict[tuple[int, float], float], int]:
    """Seconds used by each living process so far, and the bytes that all hold."""
    cpu_s_of: dict[tuple[int, float], float] = {}
    memory_bytes = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            cpu_s_of[process.pid, process.create_time()] = times.user + times.system
            memory_bytes += process.memory_info().rss
    return cpu_s_of, memory_bytes


def _grown(before: dict[tuple[int, float], float], now: dict[tuple[int, float], float]) -> float:
    return sum(cpu_s - before.get(identity, 0.0) for identity, cpu_s in now.items())


def _busy_s() -> float:
    """What all processes have used since the machine started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _links() -> Sequence[str]:
    """Network interfaces that lead out of the machine and are up."""
    return [name for name, stats in psutil.net_if_stats().items() if stats.isup and name != "lo"]


def _fastest_link_kbps() -> int:
    stats = psutil.net_if_stats()
    return max((stats[name].speed for name in _links() if name in stats), default=0) * _KBPS_PER_MBPS


def _network_bytes() -> int:
    counters = psutil.net_io_counters(pernic=True)
    return sum(counters[name].bytes_sent + counters[name].bytes_recv for name in _links() if name in counters)
