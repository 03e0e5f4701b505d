"""What a policy is, and what it may look at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mumian.api.v1.fleet_pb2 import HEALTH_READY, Node, Site
from mumian.api.v1.job_pb2 import JobSpec, TaskGroup
from mumian_core import Snapshot
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim.links import Links


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task at its place. `id` is that of its allocation too."""

    id: str
    job_id: str
    spec: JobSpec
    task_group: str
    task_index: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a policy may look at when it decides.

    Args:
        nodes: all machines, in order of declaration.
        sites: by id, as they are now: PUE, prices, carbon, health.
        links: by zone and site, as they are now; between sites too where jobs have limits between groups.
        typical: what the scenario's classes ask for, and the share of arrivals that is of the class.
        movable: gives each task that runs and may be moved.
        world_changes: how often sites or links have changed; the same number means that they have not.
    """

    snapshot: Snapshot
    nodes: Sequence[Node]
    sites: Mapping[str, Site]
    links: Links
    carbon_kg_microcny: int
    typical: Sequence[tuple[TaskGroup, float]]
    movable: Callable[[], Sequence[RunningTask]]
    world_changes: int

    def sites_for(self, group: TaskGroup) -> frozenset[str]:
        """The sites that are reachable and keep the group's latency promise."""
        slo = group.latency_slo
        spent_us = group.compute_time.default_us + slo.client_us
        return frozenset(
            site_id
            for site_id, site in self.sites.items()
            if site.health == HEALTH_READY
            and (
                not slo.budget_us
                or all(
                    self.links[zone, site_id].rtt_p99_us + spent_us <= slo.budget_us for zone in slo.zone_ids
                )
            )
        )


class Policy(ABC):
    """Decides where tasks go. One object serves one run; the engine's verifier checks what it says."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def place(self, cluster: Cluster, request: engine_pb2.PlaceRequest) -> engine_pb2.Plan:
        """Places for the request's tasks; those that are left out wait.

        A placement of a task that is in `cluster.movable()` moves it. Such a plan is carried out as far as
        there is room beside what runs; without moves, all of it must be right.
        """

    def ended(self, task_ids: Sequence[str]) -> None:  # noqa: B027 - only policies with books care
        """These tasks have left their nodes. For policies that keep books of their own."""
