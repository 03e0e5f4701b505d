"""Reference cycles: collected, without a look at everything each time."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from mumian_orchestrator.main.cycle_collector import CycleCollector


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


async def test_what_outlives_a_full_look_is_not_looked_at_again(collector: CycleCollector) -> None:
    kept = Node()
    gc.collect()
    assert not any(found is kept for found in gc.get_objects(generation=2))
    assert gc.get_freeze_count() > 0


async def test_cycles_that_are_new_are_collected_at_once(collector: CycleCollector) -> None:
    dead = weakref.ref(Node())
    gc.collect()
    assert dead() is None


async def test_cycles_that_were_kept_are_collected_when_twice_as_much_is_kept(
    collector: CycleCollector,
) -> None:
    kept = Node()
    gc.collect()
    dead = weakref.ref(kept)
    del kept
    gc.collect()
    assert dead() is not None
    more = [[] for _ in range(2 * gc.get_freeze_count())]  # type: ignore[var-annotated]
    gc.collect()
    await asyncio.sleep(0)
    assert dead() is None
    assert len(more) > 0
    collector.look_at_all()
