"""Round-trip times that nobody has measured, estimated from those that somebody has.

As in Vivaldi (F. Dabek, R. Cox, F. Kaashoek and R. Morris, "Vivaldi: A Decentralized Network Coordinate
System", SIGCOMM 2004) each end, a zone or a site, has a point, and a height above it: the way from the end to
the core of the network, which each of its round trips passes. The round trip between two ends is the distance
of their points plus both heights.

Vivaldi is for ends that know only their own samples; here the coordinator has them all. So the points are
fitted to all measured pairs at once, by gradient descent (D. Kingma and J. Ba, "Adam", ICLR 2015) on the
absolute logarithm of expected over measured: half is as wrong as twice, whether of 1 ms or of 100 ms, and few
links that fit no place do not bend the others. docs/benchmarks.md, "Round trips", has what that is worth.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_Ints = NDArray[np.intp]

_DIMENSIONS = 3
_HEIGHT = _DIMENSIONS  # the row of the logarithms of the heights
# In units of the median round trip: the first round moves a point by about a step, the last by hardly any.
# Less where all ends have been fitted before, so that what is known already stays where it is.
_STEP, _STEP_AGAIN = 0.05, 0.02
_SPREAD_AT_FIRST, _HEIGHT_AT_FIRST = 0.5, 0.1
_NEAREST = 1e-3
# Below this logarithm an error counts by its square: near the best place steps have to become short.
_SMALL_ERROR = 0.1
# Adam's decay of the mean gradient and of its mean square, and what keeps the quotient finite.
_MEAN, _SQUARE, _TINY = 0.9, 0.99, 1e-8
# The error of an end: so many of its links are off by less, as if one more were off by ten times.
_COVERED = 0.9
_LOG_ERROR_MAX = math.log(10)


class Estimate(NamedTuple):
    """A round-trip time between two ends, and by how much the true one may exceed it, as far as is known."""

    rtt_us: int
    error_us: int


class NetworkCoordinates:
    """The coordinates of all ends of which there is a sample, by id.

    Deterministic: the same samples and fits in the same order and the same seed give the same estimates.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._rtt_us: dict[tuple[str, str], int] = {}
        # The numbers of the ends of these pairs, in their order: to find them anew for each fit takes long.
        self._ends: dict[str, int] = {}
        self._one, self._other = array("q"), array("q")
        self._index: dict[str, int] = {}  # the column of each end that was fitted
        self._places = np.empty((_DIMENSIONS + 1, 0))  # in us: the points, and the logarithms of the heights
        self._log_errors = np.empty(0)

    def observe(self, from_id: str, to_id: str, rtt_us: int) -> None:
        """Take a sample; it replaces the one before of the same pair. The next `fit` goes by it.

        Raises:
            ValueError: the round-trip time is not above 0, or both ends are the same.
        """
        if rtt_us <= 0 or from_id == to_id:
            raise ValueError(
                f"{rtt_us} us from {from_id} to {to_id} is no sample; give two ends, and a time above 0"
            )
        pair = _pair(from_id, to_id)
        if pair not in self._rtt_us:
            self._number(pair)
        self._rtt_us[pair] = rtt_us

    def forget(self, pairs: Iterable[tuple[str, str]]) -> None:
        """They are not measured any more; an end without any is unknown after the next `fit`."""
        for one, other in pairs:
            self._rtt_us.pop(_pair(one, other), None)
        self._ends, self._one, self._other = {}, array("q"), array("q")
        for pair in self._rtt_us:
            self._number(pair)

    @property
    def sample_count(self) -> int:
        """The pairs that it knows a sample of."""
        return len(self._rtt_us)

    def fit(self, rounds: int) -> Iterator[None]:
        """Move all ends towards what is measured; estimates change when it has come to its end.

        Yields after each piece of work, of about 0.1 us a pair, so that a caller with other duties can see to
        them.
        """
        if not self._rtt_us:
            return
        index = dict(self._ends)
        one, other = np.array(self._one, np.intp), np.array(self._other, np.intp)
        log_rtt = np.log(np.fromiter(self._rtt_us.values(), np.float64))
        log_unit = float(np.median(log_rtt))
        yield
        descent = _Descent(one, other, log_rtt - log_unit, self._start(index, log_unit))
        yield
        step = _STEP_AGAIN if index.keys() <= self._index.keys() else _STEP
        for past in range(rounds):
            descent.step(step * (1 - past / rounds))
            yield
        too_short = -descent.log_excess()
        yield
        log_errors = _log_errors(one, other, too_short, len(index))
        yield
        self._index, self._places = index, _scaled(descent.places, log_unit)
        self._log_errors = log_errors

    def estimate(self, from_id: str, to_id: str) -> Estimate | None:
        """The round-trip time between two ends; None when the last fit knew nothing of one of them."""
        one, other = self._index.get(from_id), self._index.get(to_id)
        if one is None or other is None:
            return None
        (*a, a_height), (*b, b_height) = self._places[:, one], self._places[:, other]
        rtt_us = math.dist(a, b) + math.exp(a_height) + math.exp(b_height)
        log_error = min(_LOG_ERROR_MAX, self._log_errors[one] + self._log_errors[other])
        return Estimate(max(1, round(rtt_us)), math.ceil(rtt_us * math.expm1(log_error)))

    def _number(self, pair: tuple[str, str]) -> None:
        for end, numbers in zip(pair, (self._one, self._other), strict=True):
            numbers.append(self._ends.setdefault(end, len(self._ends)))

    def _start(self, index: dict[str, int], log_unit: float) -> _Floats:
        """Where the ends are before a fit, in units: where the last one left them, or anywhere."""
        places = self._random.normal(0, _SPREAD_AT_FIRST, (_DIMENSIONS + 1, len(index)))
        places[_HEIGHT] = math.log(_HEIGHT_AT_FIRST)
        kept = [(row, self._index[end]) for end, row in index.items() if end in self._index]
        if kept:
            rows, before = (list(column) for column in zip(*kept, strict=True))
            places[:, rows] = _scaled(self._places[:, before], -log_unit)
        return places


class _Descent:
    """One fit: `places` has the coordinates of each dimension and the logarithms of the heights, by end."""

    def __init__(self, one: _Ints, other: _Ints, log_rtt: _Floats, places: _Floats) -> None:
        self._one, self._other, self._log_rtt, self.places = one, other, log_rtt, places
        self._count = places.shape[1]
        self._links = np.bincount(one, minlength=self._count) + np.bincount(other, minlength=self._count)
        self._mean, self._square = np.zeros_like(places), np.zeros_like(places)
        self._rounds = 0

    def log_excess(self) -> _Floats:
        """Of each pair the logarithm of expected over measured."""
        return self._expected()[2] - self._log_rtt

    def step(self, length: float) -> None:
        """A round of Adam."""
        apart, distance, log_expected = self._expected()
        excess = log_expected - self._log_rtt
        slope = excess / np.hypot(excess, _SMALL_ERROR) / np.exp(log_expected)
        gradient = np.empty_like(self.places)
        for dimension in range(_DIMENSIONS):
            pull = apart[dimension] * (slope / distance)
            gradient[dimension] = self._by_end(self._one, pull) - self._by_end(self._other, pull)
        gradient[_HEIGHT] = self._by_end(self._one, slope) + self._by_end(self._other, slope)
        gradient[_HEIGHT] *= np.exp(self.places[_HEIGHT])
        gradient /= self._links
        self._rounds += 1
        self._mean += (1 - _MEAN) * (gradient - self._mean)
        self._square += (1 - _SQUARE) * (gradient * gradient - self._square)
        mean = self._mean / (1 - _MEAN**self._rounds)
        square = self._square / (1 - _SQUARE**self._rounds)
        self.places -= length * mean / (np.sqrt(square) + _TINY)

    def _expected(self) -> tuple[_Floats, _Floats, _Floats]:
        """Of each pair how its points lie apart, by how much, and the logarithm of its round trip."""
        points, heights = self.places[:_DIMENSIONS], np.exp(self.places[_HEIGHT])
        apart = points[:, self._one] - points[:, self._other]
        distance = np.sqrt((apart * apart).sum(0) + _NEAREST**2)
        return apart, distance, np.log(distance + heights[self._one] + heights[self._other])

    def _by_end(self, end: _Ints, of_pair: _Floats) -> _Floats:
        return np.bincount(end, of_pair, self._count).astype(np.float64, copy=False)


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def _scaled(places: _Floats, log_factor: float) -> _Floats:
    points, log_heights = places[:_DIMENSIONS], places[_HEIGHT:]
    return np.vstack([points * math.exp(log_factor), log_heights + log_factor])


def _log_errors(one: _Ints, other: _Ints, too_short: _Floats, count: int) -> _Floats:
    """Of each end the quantile `_COVERED` of how much longer than expected its links are, as logarithms, at
    least 0. A place fits the links of a new end, however wrong it is: so one more is added, off by ten times.
    """
    ends = np.concatenate([one, other, np.arange(count)])
    off = np.concatenate([too_short, too_short, np.full(count, _LOG_ERROR_MAX)])
    size = np.bincount(ends)
    # One sort for all ends: each has a range of its own, wider than any two errors lie apart.
    base = 4.0 * _LOG_ERROR_MAX * np.arange(count)
    off = np.sort(base[ends] + np.clip(off, -_LOG_ERROR_MAX, _LOG_ERROR_MAX)) - np.repeat(base, size)
    rank = np.cumsum(size) - size + _COVERED * (size - 1)
    low = rank.astype(np.intp)
    part = rank - low
    return np.maximum(0, off[low] * (1 - part) + off[np.minimum(low + 1, len(off) - 1)] * part)
