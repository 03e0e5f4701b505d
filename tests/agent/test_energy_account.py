"""Every microjoule of a node's meter is somebody's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mumian.api.v1.fleet_pb2 import FIGURE_SOURCE_MEASURED, FIGURE_SOURCE_MODELLED, NodeEnergy
from mumian_agent.domain.energy_account import NodeAccount, split

SPAN_MS = 10_000


def adds_up(energy: NodeEnergy) -> bool:
    """The promise of the message."""
    went_uj = energy.allocations_uj + energy.others_uj + energy.idle_uj
    return energy.metered_uj + energy.advanced_uj == went_uj


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**12), min_size=1, max_size=20))
def test_a_split_adds_up_and_each_part_is_within_one_of_its_share(total: int, weights: list[int]) -> None:
    parts = split(total, weights)
    assert sum(parts) == total
    assert all(part >= 0 for part in parts)
    if whole := sum(weights):
        assert all(
            abs(part * whole - total * weight) < whole for part, weight in zip(parts, weights, strict=True)
        )


event = st.one_of(
    st.tuples(st.just("use"), st.integers(0, 4), st.integers(0, 10**9)),
    st.tuples(st.just("end"), st.integers(0, 4), st.integers(0, 10**9)),
    # What the meter reads, or that it reads nothing; and what others use.
    st.tuples(st.just("close"), st.none() | st.integers(0, 10**10), st.integers(0, 10**9)),
)


@given(st.none() | st.integers(0, 500_000), st.lists(event, max_size=40))
def test_whatever_happens_the_account_adds_up_and_receipts_are_its_allocations(
    idle_mw: int | None, events: list[tuple[str, int | None, int]]
) -> None:
    """However tasks come and end, and whatever the meter reads or lies."""
    account: NodeAccount[str] = NodeAccount("s/n1", idle_mw)
    live: dict[str, int] = {}
    receipts_uj: list[int] = []
    made = 0
    for name, what, amount in events:
        if name == "close":
            used_uj = amount + sum(live.values())
            account.close(SPAN_MS, what, used_uj, live)
        else:
            key = next((key for key in live if key.endswith(f"-{what}")), None)
            if key is None:
                made += 1
                key = f"{made}-{what}"
                account.open(key, 0, 0)
                live[key] = 0
            live[key] += amount
            if name == "end":
                receipts_uj.append(account.settle(key, live.pop(key)))
        energy = account.energy()
        assert adds_up(energy)
        charged_uj = sum(receipts_uj) + sum(account.charged_uj(key) for key in live)
        assert charged_uj == energy.allocations_uj
        assert all(receipt_uj >= 0 for receipt_uj in receipts_uj)


def test_the_meter_says_how_much_and_the_model_who() -> None:
    account: NodeAccount[str] = NodeAccount("s/n1", idle_power_mw=1000)
    account.open("a", 0, 0)
    account.open("b", 0, 0)
    # 10 s at 7 W by the meter: 1 W is idle, and the model has a, b and others at 1 to 2 to 3.
    account.close(SPAN_MS, 70_000_000, 60_000, {"a": 10_000, "b": 20_000})
    assert (account.charged_uj("a"), account.charged_uj("b")) == (10_000_000, 20_000_000)
    energy = account.energy()
    assert (energy.others_uj, energy.idle_uj) == (30_000_000, 10_000_000)
    assert energy.source == FIGURE_SOURCE_MEASURED


def test_without_a_meter_everybody_is_charged_what_the_model_says() -> None:
    account: NodeAccount[str] = NodeAccount("s/n1")
    account.open("a", 0, 0)
    account.close(SPAN_MS, None, 50_000, {"a": 20_000})
    energy = account.energy()
    assert (account.charged_uj("a"), energy.others_uj, energy.idle_uj) == (20_000, 30_000, 0)
    assert (energy.metered_uj, energy.source) == (50_000, FIGURE_SOURCE_MODELLED)


def test_a_task_of_milliseconds_is_charged_at_once_and_the_meter_is_lessened_by_it() -> None:
    account: NodeAccount[str] = NodeAccount("s/n1", idle_power_mw=0)
    account.open("a", 0, 0)
    assert account.settle("a", 137) == 137
    assert account.energy().advanced_uj == 137
    account.close(SPAN_MS, 1000, 1000, {})
    energy = account.energy()
    assert (energy.advanced_uj, energy.allocations_uj, energy.others_uj) == (0, 137, 863)


def test_idle_power_is_the_least_that_the_meter_read_beyond_the_model() -> None:
    account: NodeAccount[str] = NodeAccount("s/n1")
    account.close(SPAN_MS, 90_000_000, 0, {})
    account.close(SPAN_MS, 80_000_000, 0, {})
    account.open("a", 0, 0)
    account.close(SPAN_MS, 100_000_000, 10_000_000, {"a": 10_000_000})
    # 8 W of the 10 are idle; all that is left is the task's.
    assert account.charged_uj("a") == 20_000_000


def test_an_allocation_that_the_agent_finds_again_keeps_what_it_was_charged() -> None:
    account: NodeAccount[str] = NodeAccount("s/n1")
    account.open("a", modelled_uj=500, charged_uj=700)
    assert account.settle("a", 600) == 800


def test_nobody_to_split_among_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one weight"):
        split(1, [])
