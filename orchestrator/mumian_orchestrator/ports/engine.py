"""The placement engine as the services see it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from mumian.api.v1.explanation_pb2 import Explanation, Rejection
from mumian.api.v1.fleet_pb2 import Link, Node, Site
from mumian.api.v1.job_pb2 import Allocation, Job

from mumian_orchestrator.domain.arrangement import Assessment, Problem, RunningTask, SearchLimits, Solution
from mumian_orchestrator.domain.decision import Decision, PendingJob


class EngineRefusedError(Exception):
    """The engine refused a request as malformed; a job that admission let through should never cause it."""


class EnginePanickedError(EngineRefusedError):
    """The engine met a defect of its own; its state is as it was."""


class Engine(Protocol):
    """A cache of the cluster that decides where tasks go."""

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
        """Change the cluster, whole or not at all; an allocation is booked with its job."""

    def shield(self, added: Collection[str], dropped: Collection[str]) -> None:
        """Allocations that nothing may evict, from when they are booked next, and such as may be again."""

    async def place(
        self, evaluation_id: str, jobs: Sequence[PendingJob], now_unix_s: int, *, may_evict: bool = False
    ) -> Decision:
        """Where the pending tasks would go; books nothing. Costs, and what waits, go by the time given.
        Allocations of lower priority are evicted only if the platform's policy and the caller say so.
        """

    def verify(self, decision: Decision, jobs: Sequence[PendingJob]) -> Decision:
        """The part of a decision that still holds on the newest state, with the evictions for it. Its
        generation is that state's: if the decision was made on the same, nothing of it should be missing.
        """

    async def explain(self, job: PendingJob, now_unix_s: int) -> list[Explanation]:
        """Why the job's tasks would go where they would, or wait, on the state as it is now."""

    def view(self) -> View:
        """The cluster as it is now, for questions that touch nothing."""


class View(Protocol):
    """A cluster that nobody changes."""

    def changed(
        self,
        *,
        sites: Sequence[Site] = (),
        nodes: Sequence[Node] = (),
        links: Sequence[Link] = (),
        removed_site_ids: Sequence[str] = (),
        booked: Sequence[tuple[Job, Allocation]] = (),
        freed: Sequence[str] = (),
    ) -> View:
        """The view as it would be after a change; this one stays as it is."""

    def verify(self, decision: Decision, jobs: Sequence[PendingJob]) -> Decision:
        """The part of a decision that holds here."""

    async def assess(
        self, jobs: Sequence[PendingJob], running: Sequence[RunningTask], now_unix_s: int
    ) -> list[Assessment]:
        """How each running task stands here, in their order, at the prices of that time's hour. Runs beside
        the event loop.
        """

    async def rejections(
        self, jobs: Sequence[PendingJob], running: Sequence[RunningTask], now_unix_s: int
    ) -> list[Rejection | None]:
        """The constraint that would keep each running task from its place if it came anew, in their order.
        None: there is none, or the task is not here. Runs beside the event loop.
        """

    async def optimize(
        self, evaluation_id: str, problem: Problem, limits: SearchLimits, now_unix_s: int
    ) -> Solution:
        """The best arrangement that is found in time, at the prices of that time's hour. Runs beside the
        event loop; ends when cancelled.
        """
