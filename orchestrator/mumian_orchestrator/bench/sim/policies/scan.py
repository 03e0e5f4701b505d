"""Policies that score single nodes: the base class for one of your own."""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim.policies.base import Cluster, Policy
from mumian_orchestrator.bench.sim.policies.books import Books, Room, Task


@dataclass(slots=True)
class _Queue:
    """The nodes that fit one kind of task, best first. Entries whose version is old count for nothing."""

    task: Task
    dirty: set[int]
    heap: list[tuple[float, int, int]] = field(default_factory=list)
    versions: dict[int, int] = field(default_factory=dict)


class ScanPolicy(Policy):
    """Takes the node with the lowest score; ties go to the node declared first.

    It keeps the scenario's hard constraints (room, reachability, latency), so that only the choice differs.
    A score may look at the room, its site and the task; it is asked again only when one of them has changed.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._books: Books | None = None
        self._world_changes = -1
        self._queues: dict[bytes, _Queue] = {}

    @abstractmethod
    def score(self, room: Room, task: Task) -> float:
        """Of a node that fits; lower is better."""

    def devices(self, room: Room, task: Task) -> list[int]:
        """Which devices of the chosen node the task gets."""
        return room.choose(task)

    def begin(self, cluster: Cluster) -> None:
        """At the start, and whenever sites or links have changed."""

    def place(self, cluster: Cluster, request: engine_pb2.PlaceRequest) -> engine_pb2.Plan:
        """Each task sees those before it, by priority and then in order."""
        books = self._see(cluster)
        plan = engine_pb2.Plan(evaluation_id=request.evaluation_id)
        for job in sorted(request.jobs, key=lambda job: -job.spec.priority):
            key = job.spec.task_groups[0].SerializeToString()
            queue = self._queues.get(key)
            if queue is None:
                group = job.spec.task_groups[0]
                task = Task.of(group, cluster.sites_for(group))
                queue = self._queues[key] = _Queue(task, set(range(len(books.rooms))))
            number = self._best(books, queue)
            if number is None:
                continue
            room = books.rooms[number]
            chosen = self.devices(room, queue.task) if queue.task.accelerator_milli else []
            devices = books.take(job.job_id, number, queue.task, chosen)
            self._changed([number])
            plan.placements.add(
                job_id=job.job_id,
                task_group="main",
                site_id=room.node.site_id,
                node_id=room.node.id,
                devices=devices,
            )
        return plan

    def ended(self, job_ids: Sequence[str]) -> None:
        """Their nodes have more room."""
        if self._books is not None:
            self._changed(self._books.give_back(job_ids))

    def _see(self, cluster: Cluster) -> Books:
        if self._books is None:
            self._books = Books(cluster)
        if cluster.world_changes != self._world_changes:
            self._world_changes = cluster.world_changes
            self._books.see(cluster)
            self._queues.clear()
            self.begin(cluster)
        return self._books

    def _changed(self, numbers: Sequence[int]) -> None:
        for queue in self._queues.values():
            queue.dirty.update(numbers)

    def _best(self, books: Books, queue: _Queue) -> int | None:
        if len(queue.heap) > 4 * len(books.rooms) + 1000:  # mostly old entries
            queue.heap.clear()
            queue.dirty.update(range(len(books.rooms)))
        for number in queue.dirty:
            version = queue.versions[number] = queue.versions.get(number, 0) + 1
            room = books.rooms[number]
            if room.node.site_id in queue.task.site_ids and room.fits(queue.task):
                heapq.heappush(queue.heap, (self.score(room, queue.task), number, version))
        queue.dirty.clear()
        while queue.heap:
            _, number, version = queue.heap[0]
            if queue.versions[number] == version:
                return number
            heapq.heappop(queue.heap)
        return None
