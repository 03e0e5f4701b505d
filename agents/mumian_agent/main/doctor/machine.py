"""What the machine gives the agent: disk, memory, its clock, its limits."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mumian.api.v1.ops_service_pb2 import Finding
from mumian.findings import fail, ok, warn

from mumian_agent.domain.config import AgentConfig
from mumian_agent.runtime.cgroup import NotDelegatedError, delegated

_MIB = 1024 * 1024
# Logs, outputs and bundles are bounded at 2 GiB each.
_DISK_WARN_MIB, _DISK_FAIL_MIB = 6 * 1024, 256
# Ray's object store; it goes to a slower place where this one is too small.
_SHARED_MEMORY = Path("/dev/shm")
_SHARED_MEMORY_MIB = 100
_OPEN_FILES = 4096
_NICENESS = -10
# adjtimex(2): the clock is not synchronised. `struct timex` is smaller than this.
_TIME_ERROR, _TIMEX_BYTES = 5, 512


def look(config: AgentConfig) -> Iterator[Finding]:
    """All findings of this machine."""
    yield disk(config.state_dir)
    yield _shared_memory()
    yield _clock()
    yield _open_files()
    yield _precedence()
    yield _cgroup()


def disk(state_dir: Path) -> Finding:
    """Whether the journal can be written, and what room there is."""
    advice = "give state_dir a folder that this user may write, on a disk with room"
    existing = next(folder for folder in (state_dir, *state_dir.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        free_mib = shutil.disk_usage(existing).free // _MIB
    except OSError as error:
        return fail("disk", f"state_dir ({state_dir}) cannot be written: {error.strerror}", advice)
    said = f"state_dir ({state_dir}) can be written, {free_mib} MiB are free"
    if free_mib < _DISK_FAIL_MIB:
        return fail("disk", said, "make room: a site whose disk is full keeps its journal in memory")
    if free_mib < _DISK_WARN_MIB:
        return warn("disk", said, f"have {_DISK_WARN_MIB} MiB for logs, outputs and uploads")
    return ok("disk", said)


def _shared_memory() -> Finding:
    free_mib = shutil.disk_usage(_SHARED_MEMORY).free // _MIB if _SHARED_MEMORY.exists() else 0
    said = f"{_SHARED_MEMORY} has {free_mib} MiB free"
    if free_mib < _SHARED_MEMORY_MIB:
        advice = f"let it have {_SHARED_MEMORY_MIB} MiB; a container needs --shm-size, a pod an emptyDir"
        return warn("shared_memory", said, advice)
    return ok("shared_memory", said)


def _clock() -> Finding:
    # It is asked with modes 0, which changes nothing.
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state in (_TIME_ERROR, -1):
        said = "nothing keeps this machine's clock right, as far as the kernel knows"
        return warn("clock.ntp", said, "run an NTP client such as chrony, here or on the host")
    return ok("clock.ntp", "this machine's clock is kept right")


def _open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f"a process may have {'any number of' if soft == resource.RLIM_INFINITY else soft} files open"
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        return warn("open_files", said, f"allow {_OPEN_FILES}: LimitNOFILE in the unit, `ulimit -n` here")
    return ok("open_files", said)


def _precedence() -> Finding:
    # The limit is told as 20 - niceness, see getrlimit(2).
    soft, _ = resource.getrlimit(resource.RLIMIT_NICE)
    if os.geteuid() == 0 or soft == resource.RLIM_INFINITY or 20 - soft <= _NICENESS:
        return ok("precedence", "tasks with a latency promise can get the processors first")
    advice = f"LimitNICE={_NICENESS} in the unit allows it"
    return warn("precedence", "tasks with a latency promise cannot go before others here", advice)


def _cgroup() -> Finding:
    try:
        return ok("cgroup", f"the kernel can keep the limits of tasks, below {delegated()}")
    except NotDelegatedError as error:
        said = f"the kernel does not keep the limits of tasks, the agent looks at them once a second: {error}"
        advice = "run the unit of deploy/systemd with systemd 254 or newer, on cgroup v2"
        return warn("cgroup", said, advice)
