"""Policies that keep books of every node and place one task after the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

from mumian.api.v1.job_pb2 import JOB_KIND_GANG
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim.arrivals import task_id
from mumian_orchestrator.bench.sim.policies.base import Cluster, Policy
from mumian_orchestrator.bench.sim.policies.books import Books, Room, Task, Wanted
from mumian_orchestrator.bench.sim.policies.limits import Limits, has_limits
from mumian_orchestrator.bench.sim.policies.wishes import task_of

Allowed = Callable[[Room], bool]


class BookedPolicy(Policy):
    """Each task sees those before it, by priority and then in order; of a gang all are placed, or none.

    It keeps the scenario's hard constraints, so that only the choice differs.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._books: Books | None = None
        self._world_changes = -1
        self._tasks: dict[tuple[bytes, int], Task] = {}

    @abstractmethod
    def choose(self, books: Books, task: Task, allowed: Allowed | None) -> int | None:
        """The number of a node on which the task fits and that is allowed; None: there is none."""

    def devices(self, room: Room, task: Task) -> list[int]:
        """Which devices of the chosen node the task gets."""
        return room.choose(task)

    def begin(self, cluster: Cluster) -> None:
        """At the start, and whenever sites or links have changed. For policies of one's own."""

    def forget(self) -> None:
        """Sites or links have changed: what was known of any node is old."""

    def changed(self, numbers: Sequence[int]) -> None:
        """These nodes have more or less room."""

    def place(self, cluster: Cluster, request: engine_pb2.PlaceRequest) -> engine_pb2.Plan:
        """One job after the other."""
        books = self._see(cluster)
        plan = engine_pb2.Plan(evaluation_id=request.evaluation_id)
        for job in sorted(request.jobs, key=lambda job: -job.spec.priority):
            plan.placements.extend(self._place_job(books, cluster, job))
        return plan

    def ended(self, task_ids: Sequence[str]) -> None:
        """Their nodes have more room."""
        if self._books is not None:
            self.changed(self._books.give_back(task_ids))

    def _see(self, cluster: Cluster) -> Books:
        if self._books is None:
            self._books = Books(cluster)
        if cluster.world_changes != self._world_changes:
            self._world_changes = cluster.world_changes
            self._books.see(cluster)
            self._tasks.clear()
            self.forget()
            self.begin(cluster)
        return self._books

    def _place_job(
        self, books: Books, cluster: Cluster, job: engine_pb2.PendingJob
    ) -> list[engine_pb2.Placement]:
        is_gang = job.spec.kind == JOB_KIND_GANG
        placements: list[engine_pb2.Placement] = []
        taken: list[str] = []
        for wanted in self.wanted(cluster, job):
            number = self.choose(books, wanted.task, self._allowed(books, cluster, job, wanted))
            if number is None:
                if is_gang:
                    self.changed(books.give_back(taken))
                    return []
                continue
            taken.append(wanted.id)
            placements.append(self.booked(books, wanted, number))
        return placements

    def booked(self, books: Books, wanted: Wanted, number: int) -> engine_pb2.Placement:
        """The task on the node of that number, where it fits."""
        room = books.rooms[number]
        chosen = self.devices(room, wanted.task) if wanted.task.accelerator_milli else []
        placement = engine_pb2.Placement(
            job_id=wanted.job_id,
            task_group=wanted.group,
            task_index=wanted.index,
            site_id=room.node.site_id,
            node_id=room.node.id,
            devices=books.take(wanted, number, chosen),
        )
        self.changed([number])
        return placement

    def _allowed(
        self, books: Books, cluster: Cluster, job: engine_pb2.PendingJob, wanted: Wanted
    ) -> Allowed | None:
        """What a node has to keep beside room and latency; None: nothing."""
        limits = None
        if has_limits(job.spec):
            limits = Limits(job.spec, wanted.group, books.where(job.job_id), cluster.links)
        if not wanted.task.traffic:
            return limits
        return lambda room: (
            books.fits_links(wanted.task, room.node.site_id, cluster.links)
            and (limits is None or limits(room))
        )

    def wanted(self, cluster: Cluster, job: engine_pb2.PendingJob) -> Iterator[Wanted]:
        """The tasks of a job that want a place."""
        assert self._books is not None
        pending = {entry.task_group: entry.task_indexes for entry in job.pending}
        declared = job.spec.SerializeToString(deterministic=True)
        for number, group in enumerate(job.spec.task_groups):
            task = self._tasks.get((declared, number))
            if task is None:
                task = task_of(job.spec, group, cluster, self._books.kinds)
                self._tasks[declared, number] = task
            for index in pending.get(group.name, ()) if pending else range(group.count):
                yield Wanted(task_id(job.job_id, number, index), job.job_id, group.name, index, task)
