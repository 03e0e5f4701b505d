"""What each node still has, for policies that look at nodes themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mumian.api.v1.fleet_pb2 import Node, Site
from mumian.api.v1.job_pb2 import TaskGroup
from mumian.api.v1.resources_pb2 import DeviceShare

from mumian_orchestrator.bench.sim.links import Links, Pair
from mumian_orchestrator.bench.sim.policies.base import Cluster

WHOLE_MILLI = 1000


class NodeKind(NamedTuple):
    """Nodes that are alike for every wish but room."""

    site_id: str
    arch: str
    models: frozenset[str]
    labels: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Task:
    """What a task asks for.

    Args:
        accelerator_milli: of all devices together: a share of one, or whole thousands.
        accelerator_models: those that it accepts; none named: any.
        kinds: the nodes that it may run on, be there room or not.
        traffic: what it reserves of the link from each zone, in kbit/s.
        soft_microcny_per_hour: by kind, what breaking its soft promise there costs; 0 where it is left out.
    """

    cpu_milli: int
    memory_mib: int
    accelerator_milli: int = 0
    accelerator_models: frozenset[str] = frozenset()
    kinds: frozenset[NodeKind] = frozenset()
    traffic: tuple[tuple[str, int], ...] = ()
    soft_microcny_per_hour: tuple[tuple[NodeKind, int], ...] = ()

    @classmethod
    def of(
        cls,
        group: TaskGroup,
        kinds: frozenset[NodeKind] = frozenset(),
        soft_microcny_per_hour: tuple[tuple[NodeKind, int], ...] = (),
    ) -> Task:
        """The same from what a tenant declares."""
        want = group.resources
        return cls(
            want.cpu_milli,
            want.memory_mib,
            want.accelerators.milli,
            frozenset(want.accelerators.models),
            kinds,
            tuple((entry.zone_id, entry.bandwidth_kbps) for entry in group.zone_traffic),
            soft_microcny_per_hour,
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """One task that wants a place."""

    id: str
    job_id: str
    group: str
    index: int
    task: Task


@dataclass(slots=True)
class Room:
    """What one node still has; `devices_milli` of each device. `site` has the prices of now."""

    node: Node
    site: Site
    device_models: tuple[str, ...]
    cpu_milli: int
    memory_mib: int
    devices_milli: list[int]
    kind: NodeKind

    @classmethod
    def empty(cls, node: Node, site: Site) -> Room:
        """A node on which nothing runs."""
        models = tuple(a.model for a in node.accelerators for _ in range(a.count))
        kind = NodeKind(node.site_id, node.arch, frozenset(models), frozenset(node.labels.items()))
        free = [WHOLE_MILLI] * len(models)
        return cls(node, site, models, node.cpu_milli, node.memory_mib, free, kind)

    def fits(self, task: Task) -> bool:
        """Whether there is room for the task; whether it may run here is for its kinds to say."""
        return (
            task.cpu_milli <= self.cpu_milli
            and task.memory_mib <= self.memory_mib
            and (not task.accelerator_milli or bool(self.choose(task)))
        )

    def choose(self, task: Task) -> list[int]:
        """The first devices that would do; none if there are not enough."""
        each, count = each_and_count(task.accelerator_milli)
        free = [
            index
            for index, left in enumerate(self.devices_milli)
            if left >= each
            and (not task.accelerator_models or self.device_models[index] in task.accelerator_models)
        ][:count]
        return free if len(free) == count else []


def each_and_count(accelerator_milli: int) -> tuple[int, int]:
    """How much of how many devices."""
    whole = accelerator_milli // WHOLE_MILLI
    return (WHOLE_MILLI, whole) if whole else (accelerator_milli, 1)


@dataclass(slots=True)
class _Held:
    job_id: str
    group: str
    number: int
    task: Task
    devices: list[int]


class Books:
    """The rooms of all nodes, by number in order of declaration, and who holds what."""

    def __init__(self, cluster: Cluster) -> None:
        self.rooms = [Room.empty(node, cluster.sites[node.site_id]) for node in cluster.nodes]
        self.kinds = frozenset(room.kind for room in self.rooms)
        self._held: dict[str, _Held] = {}
        self._reserved_kbps: Counter[Pair] = Counter()
        self._of_job: defaultdict[str, dict[str, _Held]] = defaultdict(dict)

    def see(self, cluster: Cluster) -> None:
        """Sites have changed."""
        for room in self.rooms:
            room.site = cluster.sites[room.node.site_id]

    def fits_links(self, task: Task, site_id: str, links: Links) -> bool:
        """Whether what the task reserves is still free on its links to a site."""
        return all(
            not (limit := links[zone, site_id].bandwidth_kbps)
            or self._reserved_kbps[zone, site_id] + kbps <= limit
            for zone, kbps in task.traffic
        )

    def where(self, job_id: str) -> list[tuple[str, Room]]:
        """The group of each task of a job that has its place, and where that is."""
        return [(held.group, self.rooms[held.number]) for held in self._of_job[job_id].values()]

    def take(self, wanted: Wanted, number: int, devices: list[int]) -> list[DeviceShare]:
        """Book a task on the node of that number."""
        task = wanted.task
        room = self.rooms[number]
        room.cpu_milli -= task.cpu_milli
        room.memory_mib -= task.memory_mib
        each, _ = each_and_count(task.accelerator_milli)
        for device in devices:
            room.devices_milli[device] -= each
        self._reserve(task, room, 1)
        held = _Held(wanted.job_id, wanted.group, number, task, devices)
        self._held[wanted.id] = self._of_job[wanted.job_id][wanted.id] = held
        return [DeviceShare(device_index=device, milli=each) for device in devices]

    def give_back(self, task_ids: Sequence[str]) -> list[int]:
        """Cross tasks out; the numbers of the nodes that have more room now."""
        numbers = []
        for task_id in task_ids:
            held = self._held.pop(task_id)
            del self._of_job[held.job_id][task_id]
            if not self._of_job[held.job_id]:
                del self._of_job[held.job_id]
            room = self.rooms[held.number]
            room.cpu_milli += held.task.cpu_milli
            room.memory_mib += held.task.memory_mib
            each, _ = each_and_count(held.task.accelerator_milli)
            for device in held.devices:
                room.devices_milli[device] += each
            self._reserve(held.task, room, -1)
            numbers.append(held.number)
        return numbers

    def _reserve(self, task: Task, room: Room, by: int) -> None:
        for zone, kbps in task.traffic:
            self._reserved_kbps[zone, room.node.site_id] += by * kbps
