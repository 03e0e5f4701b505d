"""The machines of a made-up city: four shapes, sized for the tasks that are to run on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mumian.api.v1.fleet_pb2 import HEALTH_READY, Node, Site
from mumian.api.v1.resources_pb2 import Accelerator

from bench.global_placement.workload import MODELS, Template

# Aimed at; since tasks do not fit together without gaps, about 0.85 of cores and memory come out.
LOAD = 0.85
SIZING_LOAD = 0.9
CORE_POWER_MW = 6_000
DEVICE_POWER_MW = {"H100": 700_000, "Ascend-910B": 400_000}


@dataclass(frozen=True)
class Shape:
    """What a node is made for.

    Args:
        tasks: on such a node, against an average one.
        devices: for ten tasks on an average node.
    """

    tasks: float
    model: str | None = None
    devices: int = 0


# Of the nodes of a site, in turn: five of them have five nodes' tasks.
SHAPES = (Shape(0.9), Shape(1.6), Shape(0.8, MODELS[0], 8), Shape(0.8, MODELS[1], 8))
SHAPE_CYCLE = (0, 2, 1, 3, 0)


@dataclass(frozen=True)
class Capacity:
    """What the nodes of a shape have."""

    cpu_milli: int
    memory_mib: int
    devices: int


def node_of(site: Site, number: int, shape: Shape, capacity: Capacity) -> Node:
    """A node that is free."""
    model = shape.model
    node = Node(
        id=f"{site.id}/n{number:06}",
        site_id=site.id,
        arch="x86_64",
        health=HEALTH_READY,
        cpu_milli=capacity.cpu_milli,
        memory_mib=capacity.memory_mib,
        core_active_power_mw=CORE_POWER_MW,
    )
    if model:
        kind = "npu" if model.startswith("Ascend") else "gpu"
        node.accelerators.append(
            Accelerator(
                kind=kind, model=model, count=capacity.devices, active_power_mw=DEVICE_POWER_MW[model]
            )
        )
    return node


def capacities_of(templates: Sequence[Template], tasks_per_node: float) -> list[Capacity]:
    """Cores, memory and devices of each shape: what its tasks take on average, at the load."""

    def mean(of: Sequence[Template], amount: Sequence[float]) -> float:
        return sum(t.weight * a for t, a in zip(of, amount, strict=True)) / sum(t.weight for t in of)

    plain = [t for t in templates if not t.devices]
    capacities = []
    for shape in SHAPES:
        devices = max(4, round(shape.devices * tasks_per_node / 10)) if shape.model else 0
        users = [t for t in templates if t.devices and shape.model in t.group.resources.accelerators.models]
        on_devices = LOAD * devices / mean(users, [t.devices for t in users]) if devices else 0.0
        on_cores = max(0.0, shape.tasks * tasks_per_node - on_devices)
        cpu_milli = on_cores * mean(plain, [t.cpu_milli for t in plain])
        memory_mib = on_cores * mean(plain, [t.memory_mib for t in plain])
        if devices:
            cpu_milli += on_devices * mean(users, [t.cpu_milli for t in users])
            memory_mib += on_devices * mean(users, [t.memory_mib for t in users])
        cores = math.ceil(cpu_milli / SIZING_LOAD / 1000)
        memory_gib = math.ceil(memory_mib / SIZING_LOAD / 1024)
        capacities.append(Capacity(cores * 1000, memory_gib * 1024, devices))
    return capacities
