"""Who gets a busy node's processors first: a task with a latency promise, then services, then the rest."""

from __future__ import annotations

import logging
import os

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


def apply(process_group: int, niceness: int) -> None:
    """Give all processes of a group this niceness, where the agent's user may."""
    try:
        os.setpriority(os.PRIO_PGRP, process_group, niceness)
    except ProcessLookupError:
        pass  # it has ended already
    except PermissionError:
        now = os.getpriority(os.PRIO_PGRP, process_group)
        log.warning(
            "niceness stays %d, not %d; let this user lower it: LimitNICE=-10 in the unit", now, niceness
        )
