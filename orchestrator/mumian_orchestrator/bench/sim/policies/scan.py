"""Policies that score single nodes: the base class for one of your own."""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from mumian_orchestrator.bench.sim.policies.booked import Allowed, BookedPolicy
from mumian_orchestrator.bench.sim.policies.books import Books, Room, Task

Entry = tuple[float, int, int]  # score, number of the node, version


@dataclass(slots=True)
class _Queue:
    """The nodes that fit one kind of task, best first. Entries whose version is old count for nothing."""

    dirty: set[int]
    heap: list[Entry] = field(default_factory=list)
    versions: dict[int, int] = field(default_factory=dict)


class ScanPolicy(BookedPolicy):
    """Takes the node with the lowest score; ties go to the node declared first.

    A score may look at the room, its site and the task; it is asked again only when one of them has changed.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._queues: dict[Task, _Queue] = {}

    @abstractmethod
    def score(self, room: Room, task: Task) -> float:
        """Of a node that fits; lower is better."""

    def forget(self) -> None:
        """Every score is old."""
        self._queues.clear()

    def changed(self, numbers: Sequence[int]) -> None:
        """Their scores are old."""
        for queue in self._queues.values():
            queue.dirty.update(numbers)

    def choose(self, books: Books, task: Task, allowed: Allowed | None) -> int | None:
        """The best that is allowed."""
        queue = self._queues.get(task)
        if queue is None:
            queue = self._queues[task] = _Queue(set(range(len(books.rooms))))
        self._score_again(books, queue, task)
        passed: list[Entry] = []
        found = None
        while queue.heap and found is None:
            entry = queue.heap[0]
            _, number, version = entry
            if queue.versions[number] != version:
                heapq.heappop(queue.heap)
            elif allowed is None or allowed(books.rooms[number]):
                found = number
            else:
                passed.append(heapq.heappop(queue.heap))
        for entry in passed:
            heapq.heappush(queue.heap, entry)
        return found

    def _score_again(self, books: Books, queue: _Queue, task: Task) -> None:
        if len(queue.heap) > 4 * len(books.rooms) + 1000:  # mostly old entries
            queue.heap.clear()
            queue.dirty.update(range(len(books.rooms)))
        for number in queue.dirty:
            version = queue.versions[number] = queue.versions.get(number, 0) + 1
            room = books.rooms[number]
            if room.kind in task.kinds and room.fits(task):
                heapq.heappush(queue.heap, (self.score(room, task), number, version))
        queue.dirty.clear()
