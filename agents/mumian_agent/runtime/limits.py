"""The limits of a task: kept by the kernel where the agent may make cgroups, else looked at."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime.cgroup import Cgroup, NotDelegatedError, delegated
from mumian_agent.runtime.container import name_of
from mumian_agent.runtime.task import Task

log = logging.getLogger(__name__)


@functools.cache
def where_kept() -> Path | None:
    """Where this process makes the cgroups of tasks; None, and a line in the log: nowhere."""
    try:
        folder = delegated()
    except NotDelegatedError as error:
        log.warning("the kernel does not keep the limits of tasks: %s", error)
        return None
    log.info("the kernel keeps the limits of tasks, below %s", folder)
    return folder


def keep(task: Task) -> Cgroup | None:
    """The cgroup that a task is to be put into; None: there is none. A container has its own."""
    folder = None if task.is_container else where_kept()
    if folder is None:
        return None
    resources = task.run.task_group.resources
    try:
        return Cgroup.make(folder, name_of(task.key), resources.cpu_milli, resources.memory_mib)
    except OSError as error:
        log.warning("the kernel does not keep the limits of %s: %s", task.key, error)
        return None


def clear(key: AllocationKey) -> None:
    """What is left of an attempt's cgroup, by a runner that was lost, ends."""
    folder = where_kept()
    if folder is not None:
        end(Cgroup(folder / name_of(key)), key)


def end(cgroup: Cgroup, key: AllocationKey) -> None:
    """Whatever is in it ends."""
    try:
        cgroup.end()
    except OSError as error:
        log.warning("the cgroup of %s is left: %s", key, error)
