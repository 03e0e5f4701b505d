"""What a task of each job costs on each sort of node, asked of the engine itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mumian.api.v1.fleet_pb2 import Node
from mumian_core import Engine
from mumian_core.v1.engine_pb2 import Delta, PendingJob, PendingTasks, PlaceRequest, Plan

from bench.global_placement.instance import POLICY, Instance


@dataclass(frozen=True)
class PairTable:
    """The instance as arithmetic.

    Args:
        node_classes: of each node; nodes of a class are of one site and one shape.
        costs: for each job and class, micro-CNY per hour of one task; None where it may not run.
    """

    node_classes: Sequence[int]
    costs: Sequence[Sequence[int | None]]


def ask_engine(instance: Instance) -> PairTable:
    """Place one task of each job on an otherwise empty cluster of one node, for each class of nodes."""
    class_of: dict[tuple[str, int], int] = {}
    specimens: list[Node] = []
    node_classes = []
    for node, shape in zip(instance.delta.nodes, instance.node_shapes, strict=True):
        key = (node.site_id, shape)
        if key not in class_of:
            class_of[key] = len(class_of)
            specimens.append(node)
        node_classes.append(class_of[key])
    requests = [_one_task(job).SerializeToString() for job in instance.jobs]
    by_class = [_costs_on(instance, node, requests) for node in specimens]
    return PairTable(node_classes, list(zip(*by_class, strict=True)))


def _one_task(job: PendingJob) -> PlaceRequest:
    pending = PendingTasks(task_group=job.spec.task_groups[0].name, task_indexes=[0])
    single = PendingJob(job_id=job.job_id, spec=job.spec, pending=[pending])
    return PlaceRequest(evaluation_id="pair", jobs=[single], policy=POLICY)


def _costs_on(instance: Instance, node: Node, requests: Sequence[bytes]) -> list[int | None]:
    sites = [site for site in instance.delta.sites if site.id == node.site_id]
    links = [link for link in instance.delta.links if link.to_site_id == node.site_id]
    engine = Engine()
    engine.apply(Delta(reset=True, sites=sites, nodes=[node], links=links).SerializeToString())
    snapshot = engine.snapshot()
    plans = [Plan.FromString(snapshot.place(request)) for request in requests]
    return [plan.placements[0].cost.total_microcny_per_hour if plan.placements else None for plan in plans]
