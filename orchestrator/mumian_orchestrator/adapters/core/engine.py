"""The Rust engine behind the services' port."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from mumian.api.v1.explanation_pb2 import Explanation
from mumian.api.v1.fleet_pb2 import Link, Node, Site
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian_core import Engine as NativeEngine
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.adapters.core.view import CoreView
from mumian_orchestrator.adapters.core.wire import decision_of, put_pending_job, refusals_named, used
from mumian_orchestrator.domain.decision import Decision, PendingJob
from mumian_orchestrator.ports.decision_log import DecisionLog


class CoreEngine:
    """One engine for one term; it starts empty and is told everything by `update`.

    Args:
        policy: the platform's own terms of the cost.
        native: one that somebody else tells things too; by default one of its own.
        decisions: where is kept what it is told, asked and answers; None: nowhere.
    """

    def __init__(
        self,
        policy: engine_pb2.Policy,
        native: NativeEngine | None = None,
        decisions: DecisionLog | None = None,
    ) -> None:
        self._native = NativeEngine() if native is None else native
        self._decisions = decisions
        if decisions:
            decisions.started()
        self._policy = policy
        self._shielded: set[str] = set()

    def update(
        self,
        *,
        sites: Sequence[Site] = (),
        nodes: Sequence[Node] = (),
        links: Sequence[Link] = (),
        removed_node_ids: Sequence[str] = (),
        booked: Sequence[tuple[Job, Allocation]] = (),
        freed: Sequence[str] = (),
    ) -> None:
        """Change the cluster, whole or not at all.

        Raises:
            EngineRefusedError: the change speaks of sites or nodes that are not there.
        """
        delta = engine_pb2.Delta(
            base_generation=self._native.generation(),
            sites=sites,
            nodes=nodes,
            links=links,
            removed_node_ids=removed_node_ids,
            allocations=[
                used(job, allocation, is_shielded=allocation.id in self._shielded)
                for job, allocation in booked
            ],
            removed_allocation_ids=freed,
        )
        data = delta.SerializeToString()
        refusals_named(self._native.apply, data)
        if self._decisions:
            self._decisions.changed(data)
        self._shielded.difference_update(freed)

    def shield(self, added: Collection[str], dropped: Collection[str]) -> None:
        """Allocations that nothing may evict, from when they are booked next, and such as may be again."""
        self._shielded = (self._shielded | set(added)) - set(dropped)

    async def place(
        self, evaluation_id: str, jobs: Sequence[PendingJob], now_unix_s: int, *, may_evict: bool = False
    ) -> Decision:
        """Where the pending tasks would go; books nothing. Runs beside the event loop."""
        request = engine_pb2.PlaceRequest(
            evaluation_id=evaluation_id, policy=self._policy, now_unix_s=now_unix_s
        )
        request.policy.preempt = self._policy.preempt and may_evict
        for job in jobs:
            put_pending_job(job, request.jobs.add())
        snapshot, data = self._native.snapshot(), request.SerializeToString()
        number = self._decisions.asked(data) if self._decisions else 0
        answer = await asyncio.to_thread(refusals_named, snapshot.place, data)
        if self._decisions:
            self._decisions.answered(number, answer)
        return decision_of(engine_pb2.Plan.FromString(answer))

    def verify(self, decision: Decision, jobs: Sequence[PendingJob]) -> Decision:
        """The placements that still hold on the newest state, with their evictions."""
        return self.view().verify(decision, jobs)

    async def explain(self, job: PendingJob, now_unix_s: int) -> list[Explanation]:
        """Why the job's tasks would go where they would, or wait, on the state as it is now."""
        request = engine_pb2.ExplainRequest(policy=self._policy, now_unix_s=now_unix_s)
        put_pending_job(job, request.job)
        snapshot = self._native.snapshot()
        answer = await asyncio.to_thread(refusals_named, snapshot.explain, request.SerializeToString())
        return list(engine_pb2.ExplainResponse.FromString(answer).explanations)

    def view(self) -> CoreView:
        """The cluster as it is now; what comes later does not change it."""
        return CoreView(self._native.snapshot(), self._native.generation(), self._policy)
