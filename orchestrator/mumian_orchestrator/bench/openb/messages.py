"""A trace as the messages of the engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import Enum

from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.resources_pb2 import Accelerator, AcceleratorRequest, Resources
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.openb.trace import TraceNode, TraceTask

SITE = "openb"
GROUP = "main"


class Objective(Enum):
    """What the placer goes by."""

    PACK = engine_pb2.OBJECTIVE_PACK
    COST = engine_pb2.OBJECTIVE_COST
    RANDOM = engine_pb2.OBJECTIVE_RANDOM


def cluster_of(nodes: Sequence[TraceNode]) -> engine_pb2.Delta:
    """All nodes, empty, on one site."""
    ready = fleet_pb2.HEALTH_READY
    return engine_pb2.Delta(
        reset=True,
        sites=[fleet_pb2.Site(id=SITE, health=ready)],
        nodes=[
            fleet_pb2.Node(
                id=f"{SITE}/{node.name}",
                site_id=SITE,
                health=ready,
                cpu_milli=node.cpu_milli,
                memory_mib=node.memory_mib,
                accelerators=[Accelerator(kind="gpu", model=node.model, count=node.gpus)]
                if node.gpus
                else [],
            )
            for node in nodes
        ],
    )


def policy_of(objective: Objective, tasks: Sequence[TraceTask]) -> engine_pb2.Policy:
    """With the task list as the workload that PACK expects."""
    policy = engine_pb2.Policy(objective=objective.value)
    if objective is Objective.PACK:
        for task, weight in Counter(tasks).items():
            policy.typical_tasks.add(resources=resources_of(task), weight=weight)
    return policy


def job_of(number: int, task: TraceTask) -> engine_pb2.PendingJob:
    """One job of one task, named by the number of its arrival."""
    group = job_pb2.TaskGroup(name=GROUP, count=1, resources=resources_of(task))
    return engine_pb2.PendingJob(job_id=str(number), spec=job_pb2.JobSpec(task_groups=[group]))


def resources_of(task: TraceTask) -> Resources:
    """What the task asks for."""
    resources = Resources(cpu_milli=task.cpu_milli, memory_mib=task.memory_mib)
    if task.gpu_milli:
        resources.accelerators.CopyFrom(AcceleratorRequest(milli=task.gpu_milli, models=task.models))
    return resources


def allocation_of(placement: engine_pb2.Placement, task: TraceTask) -> engine_pb2.UsedResources:
    """The allocation that commits a placement, named as its job."""
    return engine_pb2.UsedResources(
        allocation_id=placement.job_id,
        node_id=placement.node_id,
        resources=resources_of(task),
        devices=placement.devices,
        job_id=placement.job_id,
        task_group=GROUP,
    )
