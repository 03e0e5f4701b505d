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


def fit(coordinates: NetworkCoordinates, rounds: int = 300) -> None:
    for _ in coordinates.fit(rounds):
        pass


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
    for a in range(40):
        for b in peers[a]:
            coordinates.observe(str(a), str(b), rtt_us(a, b))
    fit(coordinates)
    errors = []
    for a in range(40):
        for b in range(a):
            if b not in peers[a] and a not in peers[b]:
                estimate = coordinates.estimate(str(a), str(b))
                assert estimate is not None
                errors.append(abs(estimate.rtt_us - rtt_us(a, b)) / rtt_us(a, b))
    assert sorted(errors)[len(errors) // 2] < 0.01
    assert sorted(errors)[len(errors) * 9 // 10] < 0.10


@given(SAMPLES)
def test_whatever_is_measured_coordinates_stay_finite_and_estimates_positive_and_symmetric(
    samples: list[tuple[str, str, int]],
) -> None:
    coordinates = NetworkCoordinates()
    for one, other, rtt_us in samples:
        coordinates.observe(one, other, rtt_us)
    fit(coordinates, 50)
    fit(coordinates, 5)
    known = {end for one, other, _ in samples for end in (one, other)}
    for one in known:
        for other in known - {one}:
            estimate = coordinates.estimate(one, other)
            assert estimate is not None
            assert estimate.rtt_us > 0
            assert 0 <= estimate.error_us <= 9 * estimate.rtt_us + 10
            assert estimate == coordinates.estimate(other, one)


@given(SAMPLES)
def test_the_same_samples_give_the_same_coordinates(samples: list[tuple[str, str, int]]) -> None:
    one, again = NetworkCoordinates(7), NetworkCoordinates(7)
    for sample in samples:
        one.observe(*sample)
        again.observe(*sample)
    fit(one, 20)
    fit(again, 20)
    assert all(one.estimate(a, b) == again.estimate(a, b) for a in "abcdef" for b in "abcdef" if a != b)


def test_of_an_end_that_nobody_measured_or_that_is_gone_nothing_is_said() -> None:
    coordinates = NetworkCoordinates()
    coordinates.observe("a", "b", 5000)
    coordinates.observe("c", "b", 5000)
    fit(coordinates)
    assert coordinates.estimate("a", "d") is None
    assert coordinates.estimate("a", "c") is not None
    coordinates.forget([("b", "a")])
    fit(coordinates)
    assert coordinates.estimate("a", "c") is None
    assert coordinates.estimate("b", "c") is not None


def test_the_error_shrinks_with_the_pairs_that_agree_and_grows_when_some_do_not() -> None:
    points, access_us = city(1)
    coordinates = NetworkCoordinates()

    def error(count: int) -> float:
        """Of the estimate between two ends that each know `count` others."""
        for end in ("0", "1"):
            for peer in range(2, 2 + count):
                apart_us = math.dist(points[int(end)], points[peer])
                coordinates.observe(end, str(peer), round(apart_us + access_us[int(end)] + access_us[peer]))
        fit(coordinates)
        estimate = coordinates.estimate("0", "1")
        assert estimate is not None
        return estimate.error_us / estimate.rtt_us

    few, some, many = error(2), error(8), error(30)
    assert few > 2 * some > 4 * many
    assert many < 0.2
    for peer in range(2, 10):
        coordinates.observe("0", str(peer), 200_000)
    fit(coordinates)
    estimate = coordinates.estimate("0", "1")
    assert estimate is not None
    assert estimate.error_us > 2 * estimate.rtt_us


def test_a_fit_of_what_is_known_already_leaves_estimates_where_they_are() -> None:
    points, access_us = city(2)
    coordinates = NetworkCoordinates()
    for a in range(40):
        for b in range(a + 1, 40, 3):
            coordinates.observe(
                str(a), str(b), round(math.dist(points[a], points[b]) + access_us[a] + access_us[b])
            )
    for _ in range(5):
        fit(coordinates, 100)
    before = [coordinates.estimate("0", str(b)) for b in range(1, 40)]
    fit(coordinates, 100)
    for was, now in zip(before, (coordinates.estimate("0", str(b)) for b in range(1, 40)), strict=True):
        assert was is not None
        assert now is not None
        assert now.rtt_us == pytest.approx(was.rtt_us, rel=0.05)


@pytest.mark.parametrize("sample", [("a", "b", 0), ("a", "b", -1), ("a", "a", 5)])
def test_what_is_no_sample_is_refused(sample: tuple[str, str, int]) -> None:
    coordinates = NetworkCoordinates()
    with pytest.raises(ValueError, match="is no sample"):
        coordinates.observe(*sample)
    assert coordinates.sample_count == 0
