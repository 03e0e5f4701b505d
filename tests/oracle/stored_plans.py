"""What was committed, judged commit by commit by a verifier of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mumian.api.v1 import fleet_pb2
from mumian.api.v1.fleet_pb2 import Node, Site
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.domain.decision import Decision, PendingJob, Placement
from mumian_orchestrator.domain.job_state import TERMINAL_ALLOCATION_STATES, holds_room, is_live, task_of
from mumian_orchestrator.main.config import Config

_JOBS, _ALLOCATIONS = "jobs/", "allocations/"


class StoredPlans:
    """Follows the writes of the store. It takes the nodes to be always the same, and well."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._engine = CoreEngine(Config().policy)
        sites = [Site(id=site_id, health=fleet_pb2.HEALTH_READY) for site_id in {n.site_id for n in nodes}]
        self._engine.update(sites=sites, nodes=[_empty(node) for node in nodes])
        self._jobs: dict[str, Job] = {}
        self._allocations: dict[str, Allocation] = {}
        self._revision = 0
        self._changed: list[Allocation] = []
        self._faults: list[str] = []

    def happened(self, key: str, value: bytes | None, revision: int) -> None:
        """One write, in the order of the revisions."""
        if revision != self._revision:
            self._judge()
            self._revision = revision
        if value is None:
            return
        if key.startswith(_JOBS):
            job = Job.FromString(value)
            self._jobs[job.id] = job
        elif key.startswith(_ALLOCATIONS):
            self._changed.append(Allocation.FromString(value))

    def faults(self) -> list[str]:
        """What was wrong, once all is told."""
        self._judge()
        return self._faults

    def _judge(self) -> None:
        """One commit: what has ended makes room first."""
        new, back, gone = [], [], []
        for allocation in self._changed:
            before = self._allocations.get(allocation.id)
            self._allocations[allocation.id] = allocation
            if before is None:
                new.append(allocation)
                continue
            if before.state in TERMINAL_ALLOCATION_STATES and allocation.state != before.state:
                self._faults.append(
                    f"{allocation.id} had ended ({before.state}), and became {allocation.state} "
                    f"at revision {self._revision}"
                )
            if holds_room(before) and not holds_room(allocation):
                gone.append(allocation.id)
            elif holds_room(allocation) and not holds_room(before):
                back.append(allocation)
        self._changed.clear()
        self._engine.update(freed=gone)
        self._book(back)
        self._verify(new)

    def _verify(self, new: Sequence[Allocation]) -> None:
        for job_id in dict.fromkeys(allocation.job_id for allocation in new):
            job, placed = self._jobs[job_id], [a for a in new if a.job_id == job_id]
            # A successor stands beside the one that it takes over from, which the verifier would not have.
            placed = [allocation for allocation in placed if not allocation.takes_over_from]
            placements = [
                Placement(a.job_id, task_of(a), a.site_id, a.node_id, tuple(a.devices), a.cost, None)
                for a in placed
            ]
            pending = PendingJob(job.id, job.spec, tuple(map(task_of, placed)), job.create_time.seconds)
            kept = self._engine.verify(Decision("oracle", 0, placements, {}), [pending]).placements
            if len(kept) < len(placements):
                ids = [allocation.id for allocation in placed]
                self._faults.append(f"{ids} did not fit where they were placed at revision {self._revision}")
            self._book([a for a in new if a.job_id == job_id and is_live(a)])

    def _book(self, allocations: Iterable[Allocation]) -> None:
        self._engine.update(booked=[(self._jobs[a.job_id], a) for a in allocations])


def _empty(node: Node) -> Node:
    copy = Node()
    copy.CopyFrom(node)
    copy.health = fleet_pb2.HEALTH_READY
    for field in ("cpu_milli_allocated", "memory_mib_allocated", "devices_allocated"):
        copy.ClearField(field)
    return copy
