"""The rules of shares: how they are read, and what they come to."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mumian_orchestrator.domain.shares import (
    NOTHING,
    PARTS,
    UNLIMITED,
    Amount,
    Cover,
    Quota,
    dominant,
    is_below,
)
from mumian_orchestrator.main.share_rules import share_rules

AMOUNTS = st.builds(Amount, *(st.integers(0, 64_000) for _ in range(3)), st.integers(0, 20))


def test_rules_are_read_in_their_users_units() -> None:
    rules = share_rules(
        yaml.safe_load("""
            others: {small: true, quota: {tasks: 100}}
            small_firm_floor: {cpu: 2, memory: 4GiB}
            tenants:
              acme:
                weight: 3
                guaranteed: {cpu: 64, accelerators: 8}
                projects: {web: {cpu: 8}}
                priority_max: 80
        """)
    )
    acme = rules.of("acme")
    assert (acme.weight, acme.priority_max) == (3, 80)
    assert acme.guaranteed == Amount(cpu_milli=64_000, accelerator_milli=8000)
    assert acme.quota == UNLIMITED
    assert acme.projects == {"web": UNLIMITED._replace(cpu_milli=8000)}
    assert rules.of("nobody").guaranteed == Amount(cpu_milli=2000, memory_mib=4096)
    assert rules.of("nobody").quota == UNLIMITED._replace(tasks=100)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "shares ([]) must be a mapping"),
        ("{tenant: {}}", "shares.tenant is unknown; did you mean tenants?"),
        ("{tenants: {A B: {}}}", "shares.tenants.A B is no valid name"),
        ("{tenants: {acme: {wight: 2}}}", "shares.tenants.acme.wight is unknown; did you mean weight?"),
        ("{tenants: {acme: {weight: 0}}}", "shares.tenants.acme.weight (0) must be a whole number from 1"),
        ("{tenants: {acme: {weight: true}}}", "shares.tenants.acme.weight (True) must be a whole number"),
        ("{tenants: {acme: {quota: {cpu: many}}}}", "shares.tenants.acme.quota.cpu ('many') must be"),
        ("{tenants: {acme: {quota: {memory: 4}}}}", "shares.tenants.acme.quota.memory (4) must be a size"),
        ("{tenants: {acme: {guaranteed: {tasks: 4}}}}", "shares.tenants.acme.guaranteed.tasks is unknown"),
        ("{tenants: {acme: {priority_max: 101}}}", "shares.tenants.acme.priority_max (101) must be"),
        ("{others: {small: 1}}", "shares.others.small (1) must be true or false"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_name_and_value(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"^shares") as refused:
        share_rules(yaml.safe_load(text))
    assert str(refused.value).startswith(told)


@given(limit=AMOUNTS, held=AMOUNTS, demand=AMOUNTS)
def test_a_quota_has_room_for_as_many_tasks_as_fit_and_explains_the_next_one(
    limit: Amount, held: Amount, demand: Amount
) -> None:
    demand = demand._replace(tasks=1)
    quota = Quota("tenant acme", limit, held)
    room = quota.room(demand)
    full = quota.with_more(demand, room)
    if room:
        over = [h > most for h, most, asked in zip(full.held, limit, demand, strict=True) if asked]
        assert not any(over)
    assert full.room(demand) == 0
    assert full.excess(demand)
    assert bool(quota.excess(demand)) == (room == 0)


@given(guaranteed=AMOUNTS, demands=st.lists(AMOUNTS, max_size=8))
def test_a_guarantee_never_covers_more_than_it_names(guaranteed: Amount, demands: list[Any]) -> None:
    cover = Cover(guaranteed)
    answers = [cover.take(demand) for demand in demands]
    total = NOTHING
    for demand, is_covered in zip(demands, answers, strict=True):
        if is_covered:
            total = total.plus(demand)
    spans = [(mine, most) for mine, most in zip(total[:3], guaranteed[:3], strict=True) if most]
    assert all(mine <= most for mine, most in spans)
    if not spans:
        assert not any(answers)
    # Alone and small enough, anything is covered.
    for demand in demands:
        fits = all(d <= most for d, most in zip(demand[:3], guaranteed[:3], strict=True) if most)
        asks = any(d for d, most in zip(demand[:3], guaranteed[:3], strict=True) if most)
        assert Cover(guaranteed).take(demand) == (fits and asks)


@given(guaranteed=AMOUNTS, demands=st.lists(AMOUNTS, min_size=1, max_size=5))
def test_a_gang_is_covered_whole_or_takes_nothing(guaranteed: Amount, demands: list[Amount]) -> None:
    one_by_one, whole = Cover(guaranteed), Cover(guaranteed)
    fits = all(one_by_one.take(demand) for demand in demands)
    assert whole.take_all(demands) == fits
    if not fits:
        assert [whole.take(demand) for demand in demands] == [
            taken for cover in [Cover(guaranteed)] for taken in map(cover.take, demands)
        ]


@given(held=AMOUNTS, capacity=AMOUNTS)
def test_the_dominant_share_is_the_largest_of_all(held: Amount, capacity: Amount) -> None:
    parts, _ = dominant(held, capacity)
    shares = [PARTS * mine // all_ for mine, all_ in zip(held[:3], capacity[:3], strict=True) if all_]
    assert parts == max(shares, default=0)


def test_who_holds_as_much_as_is_guaranteed_of_one_resource_is_not_below_it() -> None:
    guaranteed = Amount(cpu_milli=2000, memory_mib=1024)
    assert is_below(NOTHING, guaranteed)
    assert not is_below(Amount(cpu_milli=2000), guaranteed)
    assert not is_below(NOTHING, NOTHING)
