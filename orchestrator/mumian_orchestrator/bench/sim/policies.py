"""Who decides where tasks go. A policy of your own: one Python file with a `POLICY` in it (docs/twin.md)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mumian.api.v1.fleet_pb2 import Node
from mumian.api.v1.resources_pb2 import DeviceShare
from mumian_core import Snapshot
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim.fields import ScenarioError

_WHOLE_MILLI = 1000
_CARBON_ABOVE_ALL_MICROCNY = 10**12  # for 1 kg: a million yuan, so that no other term matters


@dataclass(slots=True)
class Room:
    """What one node still has."""

    node: Node
    cpu_milli: int
    memory_mib: int
    devices_milli: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Cluster:
    """What a policy may look at."""

    snapshot: Snapshot
    rooms: dict[str, Room]
    reachable: set[str]
    rtt_p99_us: Mapping[tuple[str, str], int]
    carbon_kg_microcny: int


class Policy(Protocol):
    """Decides on the pending tasks of one request. The engine's verifier checks what it says."""

    name: str
    looks_at_rooms: bool

    def place(self, cluster: Cluster, request: engine_pb2.PlaceRequest) -> engine_pb2.Plan:
        """Placements; tasks that are left out wait."""


@dataclass(slots=True)
class EnginePolicy:
    """The engine, going by one of its objectives."""

    name: str
    objective: engine_pb2.Objective.ValueType
    carbon_kg_microcny: int | None = None
    looks_at_rooms: bool = False

    def place(self, cluster: Cluster, request: engine_pb2.PlaceRequest) -> engine_pb2.Plan:
        """Ask the engine."""
        request.policy.objective = self.objective
        carbon = cluster.carbon_kg_microcny if self.carbon_kg_microcny is None else self.carbon_kg_microcny
        request.policy.carbon_kg_microcny = carbon
        return engine_pb2.Plan.FromString(cluster.snapshot.place(request.SerializeToString()))


class ScanPolicy:
    """Looks at every node and takes the one with the lowest score; ties go to the node declared first.

    It keeps the scenario's hard constraints (room, reachability, latency), so that only the choice differs.
    """

    looks_at_rooms = True

    def __init__(self, name: str) -> None:
        self.name = name

    def score(self, room: Room) -> float:
        """Of a node that fits; lower is better."""
        raise NotImplementedError

    def place(self, cluster: Cluster, request: engine_pb2.PlaceRequest) -> engine_pb2.Plan:
        """Each task sees those before it. Not cheap: nodes x tasks."""
        plan = engine_pb2.Plan(evaluation_id=request.evaluation_id, base_generation=0)
        taken: dict[str, Room] = {}
        for job in sorted(request.jobs, key=lambda job: -job.spec.priority):
            fitting = [
                room
                for node_id, original in cluster.rooms.items()
                if (room := taken.get(node_id, original)) and _fits(cluster, job, room)
            ]
            if not fitting:
                continue
            best = min(fitting, key=self.score)
            copy = taken.setdefault(
                best.node.id, Room(best.node, best.cpu_milli, best.memory_mib, list(best.devices_milli))
            )
            devices = take(copy, job)
            plan.placements.add(
                job_id=job.job_id,
                task_group="main",
                task_index=0,
                site_id=best.node.site_id,
                node_id=best.node.id,
                devices=devices,
            )
        return plan


def _fits(cluster: Cluster, job: engine_pb2.PendingJob, room: Room) -> bool:
    group = job.spec.task_groups[0]
    want = group.resources
    if room.node.site_id not in cluster.reachable:
        return False
    if want.cpu_milli > room.cpu_milli or want.memory_mib > room.memory_mib:
        return False
    if want.HasField("accelerators") and not _devices(room, want.accelerators.milli):
        return False
    slo = group.latency_slo
    return not slo.budget_us or all(
        cluster.rtt_p99_us[zone, room.node.site_id] + group.compute_time.default_us + slo.client_us
        <= slo.budget_us
        for zone in slo.zone_ids
    )


def _devices(room: Room, milli: int) -> list[DeviceShare]:
    """The first devices that have so much; none if there are not enough."""
    each, count = (milli, 1) if milli < _WHOLE_MILLI else (_WHOLE_MILLI, milli // _WHOLE_MILLI)
    free = [index for index, left in enumerate(room.devices_milli) if left >= each][:count]
    return [DeviceShare(device_index=i, milli=each) for i in free] if len(free) == count else []


def take(room: Room, job: engine_pb2.PendingJob) -> list[DeviceShare]:
    """Take what the job's task asks for."""
    want = job.spec.task_groups[0].resources
    room.cpu_milli -= want.cpu_milli
    room.memory_mib -= want.memory_mib
    devices = _devices(room, want.accelerators.milli) if want.HasField("accelerators") else []
    for share in devices:
        room.devices_milli[share.device_index] -= share.milli
    return devices


class FirstFit(ScanPolicy):
    """The first node in order of declaration."""

    def score(self, room: Room) -> float:  # noqa: ARG002
        return 0.0


class BestFit(ScanPolicy):
    """The least cores left over."""

    def score(self, room: Room) -> float:
        return room.cpu_milli


class LeastAllocated(ScanPolicy):
    """Kubernetes' NodeResourcesFit with LeastAllocated: the mean share of cores and memory that is free."""

    def score(self, room: Room) -> float:
        return -_free_share(room)


class MostAllocated(ScanPolicy):
    """Kubernetes' NodeResourcesFit with MostAllocated."""

    def score(self, room: Room) -> float:
        return _free_share(room)


def _free_share(room: Room) -> float:
    return (room.cpu_milli / room.node.cpu_milli + room.memory_mib / room.node.memory_mib) / 2


def policy(name: str) -> Policy:
    """A new policy by its name, or from a Python file with a `POLICY`.

    Raises:
        ScenarioError: there is none.
    """
    if name.endswith(".py"):
        return _from_file(Path(name))
    made: dict[str, Policy] = {
        "ours": EnginePolicy("ours", engine_pb2.OBJECTIVE_COST),
        "nearest": EnginePolicy("nearest", engine_pb2.OBJECTIVE_NEAREST),
        "cheapest": EnginePolicy("cheapest", engine_pb2.OBJECTIVE_CHEAPEST_RENT),
        "greenest": EnginePolicy("greenest", engine_pb2.OBJECTIVE_COST, _CARBON_ABOVE_ALL_MICROCNY),
        "random": EnginePolicy("random", engine_pb2.OBJECTIVE_RANDOM),
        "first-fit": FirstFit("first-fit"),
        "best-fit": BestFit("best-fit"),
        "least-allocated": LeastAllocated("least-allocated"),
        "most-allocated": MostAllocated("most-allocated"),
    }
    if name not in made:
        raise ScenarioError(f"policy ({name}) is unknown; known: {', '.join(made)}, or a file ending in .py")
    return made[name]


def _from_file(path: Path) -> Policy:
    spec = importlib.util.spec_from_file_location("mumian_bench_policy", path)
    if spec is None or spec.loader is None or not path.exists():
        raise ScenarioError(f"policy ({path}) cannot be read; give a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Policy | None = getattr(module, "POLICY", None)
    if found is None:
        raise ScenarioError(f"policy ({path}) has no POLICY; set it to an object with name and place")
    return found
