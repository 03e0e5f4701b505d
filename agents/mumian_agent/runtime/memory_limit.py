"""Whether a task uses more memory than its job asked for: looked at now and then, not kept by the kernel.

Where the kernel keeps it (see `limits`) this is not used; it works everywhere. What a task takes between two
looks is not held back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import psutil

_MIB = 1024 * 1024


def excess(processes: Iterable[psutil.Process], limit_mib: int) -> str:
    """What is over the limit, in words; empty: nothing is, or the limit is 0."""
    if not limit_mib:
        return ""
    living = list(processes)
    # Shared pages count once for each process here, so it says no more than that a closer look pays.
    if sum(_resident_bytes(process) for process in living) <= limit_mib * _MIB:
        return ""
    used_bytes = sum(_proportional_bytes(process) for process in living)
    if used_bytes <= limit_mib * _MIB:
        return ""
    return f"memory limit ({limit_mib} MiB) exceeded: it used {used_bytes // _MIB} MiB"


def _resident_bytes(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _proportional_bytes(process: psutil.Process) -> int:
    """A page that several processes share counts for each in part."""
    with contextlib.suppress(psutil.Error, AttributeError):
        return int(process.memory_full_info().pss)
    return _resident_bytes(process)
