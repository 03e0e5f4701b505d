"""Turns of tenants: fair by their weights, bounded, and told when to come again."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mumian.api.v1 import error_pb2
from mumian_orchestrator.adapters.memory.virtual_time import run_in_virtual_time
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.services.fair_queue import FairQueue


class Calls:
    """Requests that take a second each, and the order in which they were let in."""

    def __init__(self, queue: FairQueue) -> None:
        self.queue = queue
        self.order: list[str] = []
        self.worst_under_way = 0

    async def call(self, tenant_id: str) -> None:
        async with self.queue.turn(tenant_id):
            self.order.append(tenant_id)
            self.worst_under_way = max(self.worst_under_way, self.queue.under_way)
            await asyncio.sleep(1)

    async def all(self, tenants: str) -> list[BaseException | None]:
        return await asyncio.gather(*(self.call(tenant) for tenant in tenants), return_exceptions=True)


async def test_a_tenant_waits_behind_its_own_requests_only() -> None:
    calls = Calls(FairQueue("submits", 1, 100, 100))
    await calls.all("aaaaaabc")
    assert "".join(calls.order) == "aabcaaaa"


async def test_a_tenant_of_more_weight_gets_more_in_its_turn() -> None:
    calls = Calls(FairQueue("submits", 1, 100, 100, {"a": 3}))
    await calls.all("b" + "a" * 7 + "b" * 3)
    assert "".join(calls.order) == "baaabaaabab"


def test_a_tenant_has_few_turns_under_way_while_others_ask_and_all_when_it_is_alone() -> None:
    """A flood that had all the turns under way made another's single request five times as slow as alone."""

    async def run() -> None:
        calls = Calls(FairQueue("submits", 8, 100, 100, beside_others_max=2))
        flood = [asyncio.create_task(calls.call("flood")) for _ in range(40)]
        await asyncio.sleep(0.5)
        assert calls.order == ["flood"] * 8, "nobody else is there"
        for _ in range(4):
            begun_s = asyncio.get_running_loop().time()
            await calls.call("quiet")
            assert asyncio.get_running_loop().time() - begun_s <= 1.5
        beside = Counter(calls.order[8:])
        assert beside["flood"] in (7, 8), "two a second beside the other"
        await asyncio.sleep(2)
        assert calls.queue.under_way == 8, "the other has gone"
        await asyncio.gather(*flood)

    run_in_virtual_time(run())


def test_who_has_nothing_under_way_does_not_wait_for_a_flood_that_has_all_it_may_have() -> None:
    """It waited until one of the flood's turns had ended, so for a commit, though there was room for it."""

    async def run() -> None:
        calls = Calls(FairQueue("submits", 8, 100, 100, beside_others_max=2))
        await calls.call("quiet")
        flood = [asyncio.create_task(calls.call("flood")) for _ in range(10)]
        for _ in range(3):
            await asyncio.sleep(0.25)
            begun_s = asyncio.get_running_loop().time()
            await calls.call("quiet")
            assert asyncio.get_running_loop().time() - begun_s == pytest.approx(1), "its own second"
        await asyncio.gather(*flood)

    run_in_virtual_time(run())


async def test_what_is_too_much_is_refused_and_told_when_to_come_again() -> None:
    calls = Calls(FairQueue("submits", 2, 5, 3))
    answers = await calls.all("aa" + "aaaa" + "bbb")
    refused = [answer for answer in answers if isinstance(answer, RequestRefusedError)]
    # One more than a may have waiting, one more than all may.
    assert [answers.index(answer) for answer in refused] == [5, 8]
    assert all(answer.reason == error_pb2.ERROR_REASON_OVERLOADED for answer in refused)
    assert all(answer.retry_after_s for answer in refused)
    assert (calls.queue.under_way, calls.queue.waiting, calls.queue.refused) == (0, 0, 2)


async def test_the_time_to_come_again_grows_with_what_waits() -> None:
    calls = Calls(FairQueue("submits", 1, 4, 4))
    await calls.all("aaa")
    waiting = [asyncio.create_task(calls.call("a")) for _ in range(5)]
    await asyncio.sleep(0)
    begun_s = asyncio.get_running_loop().time()
    with pytest.raises(RequestRefusedError) as refused:
        await calls.call("a")
    assert refused.value.retry_after_s is not None
    # The refusal was held back for all but the end of it.
    held_s = asyncio.get_running_loop().time() - begun_s
    assert 1 <= held_s <= 10
    assert held_s > refused.value.retry_after_s
    await asyncio.gather(*waiting)


async def test_no_more_refusals_are_held_back_than_may_wait() -> None:
    calls = Calls(FairQueue("submits", 1, 4, 4))
    await calls.all("aaa")
    made = [asyncio.create_task(calls.call("a")) for _ in range(12)]
    await asyncio.sleep(0.01)
    at_once = [task for task in made if task.done()]
    assert len(at_once) == 12 - 1 - 4 - 4, "one is under way, four wait, four are held back"
    for answer in await asyncio.gather(*at_once, return_exceptions=True):
        assert isinstance(answer, RequestRefusedError)
        assert answer.retry_after_s is not None
        assert answer.retry_after_s >= 1
    await asyncio.gather(*made, return_exceptions=True)


requests = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), max_size=40)


@given(requests, st.integers(1, 3), st.integers(0, 2))
def test_whoever_comes_and_goes_nobody_is_forgotten(
    calls_made: list[tuple[str, int, bool]], at_once: int, beside_others: int
) -> None:
    """Each request has its turn, unless it was refused or went away; at most so many are under way."""

    async def run() -> None:
        calls = Calls(FairQueue("submits", at_once, 8, 4, beside_others_max=beside_others))
        made = []
        for tenant, pause_s, goes_away in calls_made:
            made.append(asyncio.create_task(calls.call(tenant)))
            await asyncio.sleep(pause_s / 4)
            if goes_away:
                made[-1].cancel()
        answers = await asyncio.gather(*made, return_exceptions=True)
        left = Counter(type(answer).__name__ for answer in answers)
        assert left.keys() <= {"NoneType", "CancelledError", "RequestRefusedError"}
        assert calls.worst_under_way <= at_once
        assert (calls.queue.under_way, calls.queue.waiting) == (0, 0)

    run_in_virtual_time(run())
