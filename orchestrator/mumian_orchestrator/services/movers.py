"""What moves services has to know and to do: the coordinator's services give it, and so does the twin."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from mumian.api.v1.fleet_pb2 import Site
from mumian.api.v1.job_pb2 import Allocation, Job

from mumian_orchestrator.domain.decision import Decision, PendingJob, Placement, TaskId


class Jobs(Protocol):
    """All jobs that have not ended, with their allocations."""

    def get(self, job_id: str) -> Job | None:
        """One of them."""

    def jobs(self) -> Iterable[Job]:
        """Those that wait too."""

    def live_allocations(self, site_id: str = "") -> Iterator[tuple[Job, Allocation]]:
        """What has not ended."""


class Sites(Protocol):
    """The fleet, as far as a move depends on it."""

    def all_sites(self) -> Sequence[Site]:
        """As they are now: not to be changed."""

    def is_reachable(self, site_id: str) -> bool:
        """Whether anybody there takes commands."""


class Placer(Protocol):
    """Says where tasks would go."""

    async def place(
        self, evaluation_id: str, jobs: Sequence[PendingJob], now_unix_s: int, *, may_evict: bool
    ) -> Decision:
        """Books nothing.

        Raises:
            EngineRefusedError: one of the jobs is malformed.
        """


class Mover(Protocol):
    """Starts the second copy of a task that moves."""

    def begin_moves(
        self,
        decision: Decision,
        jobs: Sequence[PendingJob],
        leaving: Mapping[tuple[str, TaskId], str],
        why: str = "",
    ) -> Sequence[Allocation]:
        """Those that have room beside all that runs now; by job and task, `leaving` names the allocation that
        goes on until the new one runs.
        """

    def successor(self, job: Job, placement: Placement, old_id: str) -> Allocation:
        """The allocation that would take over at the new place."""


class TakeOvers(Protocol):
    """Watches moves that are under way."""

    async def settled(self, successor_ids: Collection[str]) -> None:
        """Wait until each has taken over and its predecessor has ended, or it has given up."""

    def give_up_overdue(self) -> None:
        """Stop the new allocations that have not come to run in time."""


class Evictions(Protocol):
    """Jobs that are to have the room of others."""

    def is_waiting(self, job_id: str) -> bool:
        """Whether the job has a place that others have still to leave."""
