"""What a policy is, and what it may look at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mumian.api.v1.fleet_pb2 import Node, Site
from mumian.api.v1.job_pb2 import TaskGroup
from mumian_core import Snapshot
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim.links import Links


@dataclass(frozen=True, slots=True)
class Rearranging:
    """What the coordinator does with running services, beside what its drift moves.

    Args:
        every_s: looks at the whole fleet so often; 0: only when what sites cost has changed for good.
        moves_max: services that one such look may move.
    """

    every_s: int = 0
    moves_max: int = 10


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a policy may look at when it decides.

    Args:
        nodes: all machines, in order of declaration.
        sites: by id, as they are now: PUE, prices, carbon, health.
        links: by zone and site, as they are now; between sites too where jobs have limits between groups.
        typical: what the scenario's classes ask for, and the share of arrivals that is of the class.
        world_changes: how often sites or links have changed; the same number means that they have not.
    """

    snapshot: Snapshot
    nodes: Sequence[Node]
    sites: Mapping[str, Site]
    links: Links
    carbon_kg_microcny: int
    typical: Sequence[tuple[TaskGroup, float]]
    world_changes: int


class Policy(ABC):
    """Decides where tasks go. One object serves one run; the engine's verifier checks what it says.

    Args:
        rearranging: the coordinator moves services that run; None: what runs stays.
    """

    rearranging: Rearranging | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def place(self, cluster: Cluster, request: engine_pb2.PlaceRequest) -> engine_pb2.Plan:
        """Places for the request's tasks; those that are left out wait."""

    def ended(self, task_ids: Sequence[str]) -> None:  # noqa: B027 - only policies with books care
        """These tasks have left their nodes. For policies that keep books of their own."""
