"""The simulation in short: some seeds in which nothing goes wrong, and some defects that it finds."""

from __future__ import annotations

import pytest

from tests.sim.city import simulate
from tests.sim.mutations import MUTATIONS

# Those that found a bug, which has a test of its own, and a few others.
SEEDS = (1, 24, 73, 134, 618, 1229, 1277)
# What the first seeds find. `make sim-mutations` tries all.
FOUND_AT_ONCE = (
    "no-fencing",
    "acknowledge-before-commit",
    "forget-requests",
    "confirm-before-commit",
    "book-nothing-after-takeover",
    "skip-what-was-compacted",
    "show-all-tenants",
    "keep-what-is-left",
    "forget-the-funds",
)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_done_twice_or_broken(seed: int) -> None:
    outcome = simulate(seed)
    history = "\n".join(outcome.history)
    assert outcome.verdict.is_good, f"`make sim SEED={seed}`: {outcome.verdict}\n{outcome.faults}\n{history}"


@pytest.mark.parametrize("name", FOUND_AT_ONCE)
def test_a_defect_is_found(name: str) -> None:
    with MUTATIONS[name].make():
        verdicts = (simulate(seed, MUTATIONS[name].shown_by).verdict for seed in range(1, 6))
        assert not all(verdict.is_good for verdict in verdicts)


def test_a_seed_decides_all() -> None:
    first, again = simulate(7), simulate(7)
    assert first.history == again.history
