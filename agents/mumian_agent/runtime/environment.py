"""What a task finds in its environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mumian.agent.v1.agent_pb2 import RunAllocation
from mumian.api.v1.resources_pb2 import Accelerator

from mumian_agent.runtime.process_tree import ALLOCATION_VARIABLE, ATTEMPT_VARIABLE

# The agent's own environment may hold secrets, Ray's token among them: tasks see these names of it only.
_INHERITED = (
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
)
_VISIBLE_DEVICES = {"gpu": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES"}


def environment_of(
    run: RunAllocation,
    accelerators: Sequence[Accelerator],
    coordinators: Sequence[str] = (),
    agent: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The node's variables, above them the job's own, above them what says who the task is.

    `python` on the PATH is the agent's, so that a job runs with what is installed for it on the site. With
    the coordinators and the tenant, the SDK in a task finds the tenant's other jobs.
    """
    allocation, group = run.allocation, run.task_group
    inherited = {name: agent[name] for name in _INHERITED if name in agent}
    path = f"{Path(sys.executable).parent}:{agent.get('PATH', os.defpath)}"
    return {
        **inherited,
        "PATH": path,
        "PYTHONUNBUFFERED": "1",
        "MUMIAN_COORDINATOR": ",".join(coordinators),
        "MUMIAN_TENANT": allocation.tenant_id,
        **_visible_devices(run, accelerators),
        **group.command.environment,
        **run.secrets,
        "MUMIAN_JOB_ID": allocation.job_id,
        ALLOCATION_VARIABLE: allocation.id,
        "MUMIAN_TASK_GROUP": group.name,
        "MUMIAN_TASK_INDEX": str(allocation.task_index),
        "MUMIAN_TASK_COUNT": str(group.count or 1),
        ATTEMPT_VARIABLE: str(allocation.attempt),
        "MUMIAN_SITE_ID": allocation.site_id,
        "MUMIAN_NODE_ID": allocation.node_id,
        "MUMIAN_DEVICES": ",".join(str(share.device_index) for share in allocation.devices),
    }


def devices_active_power_mw(run: RunAllocation, accelerators: Sequence[Accelerator]) -> int:
    """What the allocation's shares of devices take under load."""
    powers_mw = [each.active_power_mw for each in accelerators for _ in range(each.count)]
    return sum(
        powers_mw[share.device_index] * share.milli // 1000
        for share in run.allocation.devices
        if share.device_index < len(powers_mw)
    )


def _visible_devices(run: RunAllocation, accelerators: Sequence[Accelerator]) -> dict[str, str]:
    """The vendors' own variables. They number the devices of their kind from 0, Mumian those of the node."""
    kinds = [each.kind for each in accelerators for _ in range(each.count)]
    granted = {share.device_index for share in run.allocation.devices}
    # CUDA numbers by speed unless told to number as NVML does, by which the devices were found.
    visible = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if "gpu" in kinds else {}
    for kind, variable in _VISIBLE_DEVICES.items():
        if kind in kinds:
            of_kind = [index for index, each in enumerate(kinds) if each == kind]
            visible[variable] = ",".join(str(n) for n, index in enumerate(of_kind) if index in granted)
    return visible
