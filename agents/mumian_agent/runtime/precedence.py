"""Who gets a busy node's processors first: a task with a latency promise, then services, then the rest."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mumian.agent.v1.agent_pb2 import RunAllocation
from mumian.api.v1 import job_pb2

log = logging.getLogger(__name__)

# The kernel gives a task about 1.25 times the share of one that is 1 nicer (sched(7)): 10 make it ten times.
_PROMISED, _SERVICE, _REST = -10, 0, 10


def niceness_of(run: RunAllocation) -> int:
    """The niceness that its processes ought to have."""
    if run.task_group.HasField("latency_slo"):
        return _PROMISED
    return _SERVICE if run.kind == job_pb2.JOB_KIND_SERVICE else _REST


def apply(leader_pid: int, niceness: int) -> None:
    """Give all processes of a session of one group this niceness, where the agent's user may."""
    try:
        os.setpriority(os.PRIO_PGRP, leader_pid, niceness)
        # Between sessions the kernel goes by the niceness of the session, where it groups by them (sched(7)).
        autogroup = Path(f"/proc/{leader_pid}/autogroup")
        if autogroup.exists():
            autogroup.write_text(str(niceness))
    except (ProcessLookupError, FileNotFoundError):
        pass  # it has ended already
    except OSError as error:
        log.warning(
            "niceness of a task cannot be set to %d: %s; allow it with LimitNICE=-10 in the unit",
            niceness,
            error.strerror,
        )
