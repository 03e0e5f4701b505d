"""Reference cycles: collected, without a look at everything each time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from mumian_orchestrator.main.cycle_collector import CycleCollector

MANY, FEW = 10_000, 3000


class Node:
    """One that refers to itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
async def collector() -> Iterator[CycleCollector]:  # type: ignore[misc]
    started = CycleCollector(look_every_s=0)
    started.start()
    yield started
    started.stop()


def objects(count: int) -> list[list[int]]:
    return [[] for _ in range(count)]


async def test_python_looks_at_nothing_by_itself(collector: CycleCollector) -> None:
    dead = weakref.ref(Node())
    assert objects(MANY)
    assert dead() is not None


@pytest.mark.parametrize("count", [FEW, MANY])
async def test_cycles_that_are_new_are_collected_when_there_is_enough_that_is_new(
    collector: CycleCollector, count: int
) -> None:
    dead = weakref.ref(Node())
    collector.look()
    assert dead() is not None
    kept = objects(count)
    collector.look()
    assert dead() is None
    assert kept


async def test_what_outlives_two_looks_is_not_looked_at_again(collector: CycleCollector) -> None:
    kept = [Node(), *objects(FEW)]
    collector.look()
    more = objects(MANY)
    collector.look()
    for generation in range(3):
        assert not any(found is kept[0] for found in gc.get_objects(generation=generation))
    assert more


async def test_cycles_that_were_kept_are_collected_when_twice_as_much_is_kept(
    collector: CycleCollector,
) -> None:
    kept: list[object] = [Node(), *objects(MANY)]
    collector.look()
    dead = weakref.ref(kept[0])
    del kept[0]
    collector.look()
    assert dead() is not None
    more = objects(2 * gc.get_freeze_count())
    collector.look()
    assert dead() is None
    assert more


async def test_very_many_at_once_are_not_looked_at(collector: CycleCollector) -> None:
    """A look at them would take too long; they wait for the next at all."""
    dead = weakref.ref(Node())
    kept = objects(50_000)
    collector.look()
    assert dead() is not None
    del kept
    collector.look_at_all()
    assert dead() is None
