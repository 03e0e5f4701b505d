"""Site after site, and in each site node after node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim.policies.base import Cluster, Policy
from mumian_orchestrator.bench.sim.policies.books import Books, Task


class RoundRobin(Policy):
    """The next site in turn that has room, and there the next node in turn that has."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._books: Books | None = None
        self._of_site: dict[str, list[int]] = defaultdict(list)
        self._turn = 0
        self._turn_of_site: dict[str, int] = defaultdict(int)

    def place(self, cluster: Cluster, request: engine_pb2.PlaceRequest) -> engine_pb2.Plan:
        """By priority and then in order."""
        if self._books is None:
            self._books = Books(cluster)
            for number, node in enumerate(cluster.nodes):
                self._of_site[node.site_id].append(number)
        plan = engine_pb2.Plan(evaluation_id=request.evaluation_id)
        for job in sorted(request.jobs, key=lambda job: -job.spec.priority):
            group = job.spec.task_groups[0]
            task = Task.of(group, cluster.sites_for(group))
            chosen = self._next(self._books, task)
            if chosen is not None:
                room = self._books.rooms[chosen]
                devices = room.choose(task) if task.accelerator_milli else []
                plan.placements.add(
                    job_id=job.job_id,
                    task_group="main",
                    site_id=room.node.site_id,
                    node_id=room.node.id,
                    devices=self._books.take(job.job_id, chosen, task, devices),
                )
        return plan

    def ended(self, job_ids: Sequence[str]) -> None:
        """Their nodes have more room."""
        if self._books is not None:
            self._books.give_back(job_ids)

    def _next(self, books: Books, task: Task) -> int | None:
        sites = list(self._of_site)
        for step in range(len(sites)):
            site_id = sites[(self._turn + step) % len(sites)]
            numbers = self._of_site[site_id]
            if site_id not in task.site_ids:
                continue
            for node_step in range(len(numbers)):
                at = (self._turn_of_site[site_id] + node_step) % len(numbers)
                if books.rooms[numbers[at]].fits(task):
                    self._turn = (self._turn + step + 1) % len(sites)
                    self._turn_of_site[site_id] = at + 1
                    return numbers[at]
        return None
