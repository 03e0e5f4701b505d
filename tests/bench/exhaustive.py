"""The optimum of a tiny placement model, by trying everything."""

from __future__ import annotations

from collections.abc import Iterator

from bench.peers.model import Model


def optimum(model: Model) -> int | None:
    """The least cost of placing all tasks; None when there is no way."""
    return min(_costs(model, 0, [list(capacity) for capacity in model.node_capacities]), default=None)


def _costs(model: Model, kind: int, free: list[list[int]]) -> Iterator[int]:
    """Of every way to place the tasks of this kind and of those after it."""
    if kind == len(model.kind_counts):
        yield 0
        return
    for cost, left in _spread(model, kind, model.kind_counts[kind], 0, free):
        for rest in _costs(model, kind + 1, left):
            yield cost + rest


def _spread(
    model: Model, kind: int, count: int, node: int, free: list[list[int]]
) -> Iterator[tuple[int, list[list[int]]]]:
    """Every way to place so many tasks of one kind on this node and those after it."""
    if node == len(free):
        if count == 0:
            yield 0, free
        return
    cost = model.costs[kind][model.node_classes[node]]
    demand = model.kind_demands[kind]
    here = 0
    while True:
        taken = [has - here * takes for has, takes in zip(free[node], demand, strict=True)]
        if here > count or min(taken) < 0 or (here and cost is None):
            return
        left = [*free[:node], taken, *free[node + 1 :]]
        for rest, after in _spread(model, kind, count - here, node + 1, left):
            yield here * (cost or 0) + rest, after
        here += 1
