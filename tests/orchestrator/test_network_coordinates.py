"""Round trips that nobody measured, from those that somebody did."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mumian_orchestrator.domain.network_coordinates import NetworkCoordinates

ENDS = st.sampled_from("abcdef")
SAMPLES = st.lists(
    st.tuples(ENDS, ENDS, st.integers(1, 10**7)).filter(lambda sample: sample[0] != sample[1]), max_size=200
)


def city(seed: int) -> tuple[list[tuple[float, float]], list[float]]:
    """Forty places within 30 ms of one another, each behind an access line of 1 to 5 ms."""
    draw = random.Random(seed)
    points = [(draw.uniform(0, 20_000), draw.uniform(0, 20_000)) for _ in range(40)]
    return points, [draw.uniform(500, 2500) for _ in range(40)]


@pytest.mark.parametrize("seed", range(3))
def test_a_world_that_is_a_plane_with_access_lines_is_learnt_from_a_quarter_of_its_pairs(seed: int) -> None:
    points, access_us = city(seed)
    draw = random.Random(seed)

    def rtt_us(a: int, b: int) -> int:
        return round(math.dist(points[a], points[b]) + access_us[a] + access_us[b])

    peers = {a: draw.sample([b for b in range(40) if b != a], 10) for a in range(40)}
    coordinates = NetworkCoordinates(seed)
    for _ in range(200):
        for a in draw.sample(range(40), 40):
            b = draw.choice(peers[a])
            coordinates.observe(str(a), str(b), rtt_us(a, b))
    errors = []
    for a in range(40):
        for b in range(a):
            if b not in peers[a] and a not in peers[b]:
                estimate = coordinates.estimate(str(a), str(b))
                assert estimate is not None
                errors.append(abs(estimate.rtt_us - rtt_us(a, b)) / rtt_us(a, b))
    assert sorted(errors)[len(errors) // 2] < 0.05
    assert sorted(errors)[len(errors) * 9 // 10] < 0.20


@given(SAMPLES)
def test_whatever_is_measured_coordinates_stay_finite_and_estimates_positive_and_symmetric(
    samples: list[tuple[str, str, int]],
) -> None:
    coordinates = NetworkCoordinates()
    for one, other, rtt_us in samples:
        coordinates.observe(one, other, rtt_us)
    known = {end for one, other, _ in samples for end in (one, other)}
    for end in known:
        coordinate = coordinates.coordinate(end)
        assert coordinate is not None
        assert all(map(math.isfinite, (*coordinate.position_us, coordinate.height_us)))
        assert 0 <= coordinate.error <= 1
    for one in known:
        for other in known - {one}:
            estimate = coordinates.estimate(one, other)
            assert estimate is not None
            assert estimate.rtt_us > 0
            assert 0 <= estimate.error_us <= 10 * estimate.rtt_us + 10
            assert estimate == coordinates.estimate(other, one)


@given(SAMPLES)
def test_the_same_samples_give_the_same_coordinates(samples: list[tuple[str, str, int]]) -> None:
    one, again = NetworkCoordinates(7), NetworkCoordinates(7)
    for sample in samples:
        one.observe(*sample)
        again.observe(*sample)
    assert all(one.coordinate(end) == again.coordinate(end) for end in "abcdef")


def test_of_an_end_that_nobody_measured_or_that_is_gone_nothing_is_said() -> None:
    coordinates = NetworkCoordinates()
    coordinates.observe("a", "b", 5000)
    assert coordinates.estimate("a", "c") is None
    coordinates.forget("b")
    assert coordinates.estimate("a", "b") is None


def test_the_error_shrinks_as_samples_agree_and_grows_when_the_network_changes() -> None:
    coordinates = NetworkCoordinates()
    coordinates.observe("a", "b", 5000)
    first = coordinates.estimate("a", "b")
    for _ in range(200):
        coordinates.observe("a", "b", 5000)
    settled = coordinates.estimate("a", "b")
    coordinates.observe("a", "b", 50_000)
    changed = coordinates.estimate("a", "b")
    assert first is not None
    assert settled is not None
    assert changed is not None
    assert settled.rtt_us == pytest.approx(5000, rel=0.01)
    assert settled.error_us * 10 < first.rtt_us + first.error_us
    assert changed.error_us > 10 * settled.error_us


@pytest.mark.parametrize("sample", [("a", "b", 0), ("a", "b", -1), ("a", "a", 5)])
def test_what_is_no_sample_is_refused(sample: tuple[str, str, int]) -> None:
    coordinates = NetworkCoordinates()
    with pytest.raises(ValueError, match="is no sample"):
        coordinates.observe(*sample)
    assert coordinates.coordinate("a") is None
