"""Counts of tasks on nodes as a plan that the engine can check."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from mumian.api.v1.resources_pb2 import DeviceShare
from mumian_core import Snapshot
from mumian_core.v1.engine_pb2 import Placement, Plan, VerifyRequest, VerifyResponse

from bench.global_placement.instance import Instance


def plan_of(instance: Instance, placed: Iterable[tuple[int, int, int]]) -> Plan:
    """The plan for so many tasks of each job on each node; each gets the node's next free devices.

    Args:
        placed: job, node and number of tasks.
    """
    plan = Plan(evaluation_id="peer", base_generation=1)
    next_task: dict[int, int] = defaultdict(int)
    next_device: dict[int, int] = defaultdict(int)
    for job, node, count in placed:
        spec = instance.jobs[job].spec.task_groups[0]
        devices = spec.resources.accelerators.milli // 1000
        for _ in range(count):
            first = next_device[node]
            plan.placements.append(
                Placement(
                    job_id=instance.jobs[job].job_id,
                    task_group=spec.name,
                    task_index=next_task[job],
                    site_id=instance.delta.nodes[node].site_id,
                    node_id=instance.delta.nodes[node].id,
                    devices=[DeviceShare(device_index=first + i, milli=1000) for i in range(devices)],
                )
            )
            next_device[node] += devices
            next_task[job] += 1
    return plan


def places_all(instance: Instance, snapshot: Snapshot, plan: Plan) -> bool:
    """Whether every task of the instance has exactly one place and the engine's verifier takes them all."""
    tasks = {(p.job_id, p.task_index) for p in plan.placements}
    if not len(tasks) == len(plan.placements) == sum(map(len, instance.planted)):
        return False
    request = VerifyRequest(plan=plan, jobs=instance.jobs)
    answer = VerifyResponse.FromString(snapshot.verify(request.SerializeToString()))
    return all(verdict.accepted for verdict in answer.verdicts)
