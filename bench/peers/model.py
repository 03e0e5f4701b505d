"""The joint placement problem as every solver here gets it: so many tasks of each kind, onto nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Amounts = tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """Tasks of one kind are alike, so what counts is how many of them go to each node.

    Args:
        kind_counts: tasks of each kind; all of them must be placed.
        kind_demands: what one task of a kind takes of each resource.
        node_capacities: what a node has of each resource.
        node_classes: the class of each node, its position in a row of `costs`.
        costs: for each kind and class, micro-CNY per hour of one task; None where it may not run.
    """

    kind_counts: tuple[int, ...]
    kind_demands: tuple[Amounts, ...]
    node_capacities: tuple[Amounts, ...]
    node_classes: tuple[int, ...]
    costs: tuple[tuple[int | None, ...], ...]

    @classmethod
    def of(cls, document: dict[str, Any]) -> Model:
        """From JSON, as `bench/global_placement/peers.py` writes it."""
        return cls(
            kind_counts=tuple(document["kind_counts"]),
            kind_demands=tuple(map(tuple, document["kind_demands"])),
            node_capacities=tuple(map(tuple, document["node_capacities"])),
            node_classes=tuple(document["node_classes"]),
            costs=tuple(map(tuple, document["costs"])),
        )

    def pairs(self) -> list[Pair]:
        """One integer variable each: every kind on every node that may run it and has room for one."""
        pairs = []
        for kind, count in enumerate(self.kind_counts):
            demand = self.kind_demands[kind]
            for node, capacity in enumerate(self.node_capacities):
                cost = self.costs[kind][self.node_classes[node]]
                rooms = [has // takes for takes, has in zip(demand, capacity, strict=True) if takes]
                most = min([count, *rooms])
                if cost is not None and most > 0:
                    pairs.append(Pair(kind, node, most, cost))
        return pairs


@dataclass(frozen=True, slots=True)
class Pair:
    """Tasks of one kind on one node: at most so many, each at this cost."""

    kind: int
    node: int
    most: int
    cost: int


@dataclass(frozen=True)
class Answer:
    """What a solver found within its time.

    Args:
        status: `optimal`, `feasible`, `infeasible` or `unknown`.
        objective: cost of the best solution; None without one.
        bound: no solution costs less; None where the solver proved nothing.
        trace: seconds since the solver started and the cost of each better solution.
        placed: kind, node and number of tasks of the best solution.
    """

    solver: str
    version: str
    status: str
    objective: int | None
    bound: float | None
    build_seconds: float
    solve_seconds: float
    variables: int
    trace: list[tuple[float, int]]
    placed: list[tuple[int, int, int]]
