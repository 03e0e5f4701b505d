"""A joint placement problem of any size: a city and jobs that load it to about 85 %.

Sites differ in place, rent, tariff, PUE and carbon; nodes in cores, memory and accelerators of two
models; jobs in size, latency promise, jurisdiction and PUE ceiling. A solution that places every task
is known, because the jobs are made along with one.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from random import Random

from mumian_core.v1.engine_pb2 import Delta, PendingJob, Policy

from bench.global_placement.city import CNY, rtts_of, sites_of
from bench.global_placement.nodes import SHAPE_CYCLE, SHAPES, capacities_of, node_of
from bench.global_placement.plant import Plant
from bench.global_placement.workload import templates_of

POLICY = Policy(carbon_kg_microcny=CNY // 10)


@dataclass(frozen=True)
class Size:
    """How large an instance is."""

    tasks: int
    nodes: int

    def __str__(self) -> str:
        return f"{self.tasks}x{self.nodes}"

    @property
    def sites(self) -> int:
        """Ten nodes a site, in large cities a hundred."""
        return max(4, self.nodes // (10 if self.nodes <= 1_000 else 100))

    @property
    def jobs(self) -> int:
        """More tasks are more jobs and larger ones."""
        return min(2_000, max(10, round(3 * math.sqrt(self.tasks))))


@dataclass(frozen=True)
class Instance:
    """A cluster and the jobs to be placed on it, each of one group.

    Args:
        delta: the whole cluster, for an empty engine.
        node_shapes: the position in SHAPES of each node of the delta; nodes of one site and shape are alike.
        planted: for each job the nodes of its tasks in a solution that places all of them.
    """

    size: Size
    seed: int
    delta: Delta
    jobs: Sequence[PendingJob]
    node_shapes: Sequence[int]
    planted: Sequence[array[int]]

    def loads(self) -> dict[str, float]:
        """What the tasks take of each resource in that solution, as a share of what there is."""
        has: dict[str, int] = defaultdict(int)
        takes: dict[str, int] = defaultdict(int)
        for node in self.delta.nodes:
            has["cpu"] += node.cpu_milli
            has["memory"] += node.memory_mib
            for accelerator in node.accelerators:
                has[accelerator.model] += accelerator.count * 1000
        for job, nodes in zip(self.jobs, self.planted, strict=True):
            resources = job.spec.task_groups[0].resources
            takes["cpu"] += resources.cpu_milli * len(nodes)
            takes["memory"] += resources.memory_mib * len(nodes)
            if resources.accelerators.milli:
                for number in nodes:
                    takes[SHAPES[self.node_shapes[number]].model or ""] += resources.accelerators.milli
        return {resource: takes[resource] / amount for resource, amount in has.items()}


def generate(size: Size, seed: int) -> Instance:
    """The same size and seed give the same instance, byte for byte."""
    tries = (_drawn(size, seed, attempt) for attempt in count())
    return next(instance for instance in tries if instance is not None)


def _drawn(size: Size, seed: int, attempt: int) -> Instance | None:
    """One draw; None when, as is rare, the last nodes could not take the last tasks."""
    rng = Random(f"{size}/{seed}/{attempt}")
    sites, links = sites_of(rng, size.sites)
    templates = templates_of(rng, size.jobs)
    capacities = capacities_of(templates, size.tasks / size.nodes)
    rtts = rtts_of(links)
    site_of_node = [sites[node * size.sites // size.nodes] for node in range(size.nodes)]
    shapes = array("b", (SHAPE_CYCLE[node % len(SHAPE_CYCLE)] for node in range(size.nodes)))

    plant = Plant(rng, templates, capacities)
    quota = accumulate(SHAPES[shape].tasks for shape in shapes)
    whole = sum(SHAPES[shape].tasks for shape in shapes)
    for node, (site, shape, so_far) in enumerate(zip(site_of_node, shapes, quota, strict=True)):
        wanted = round(size.tasks * so_far / whole) - plant.task_count
        plant.fill(node, site, rtts[site.id], shape, wanted)

    if plant.task_count < size.tasks:
        return None

    jobs, planted = [], []
    for template, nodes_of_job in zip(templates, plant.nodes_of_job, strict=True):
        if nodes_of_job:
            template.group.count = len(nodes_of_job)
            jobs.append(PendingJob(job_id=template.spec.name, spec=template.spec))
            planted.append(nodes_of_job)
    nodes = [
        node_of(site, node, SHAPES[shape], capacities[shape])
        for node, (site, shape) in enumerate(zip(site_of_node, shapes, strict=True))
    ]
    delta = Delta(reset=True, sites=sites, nodes=nodes, links=links)
    return Instance(size, seed, delta, jobs, shapes, planted)
