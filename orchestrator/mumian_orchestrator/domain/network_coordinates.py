"""Round-trip times that nobody has measured, estimated from those that somebody has.

Vivaldi with heights and the adaptive timestep: F. Dabek, R. Cox, F. Kaashoek and R. Morris, "Vivaldi: A
Decentralized Network Coordinate System", SIGCOMM 2004. Each end (a zone or a site) has a point in a plane,
and a height above it: the way from the end to the core of the network, which each of its round trips
passes. The round trip between two ends is the distance of their points plus both heights. A sample moves
the ends towards what was measured, the less certain end by more.

Three things differ from the paper. There only the end that measures moves: here the coordinator sees every
sample and holds both coordinates, and a zone never measures, so each sample moves both its ends. A point
moves by the whole step, not by the part of it that the plane has in the round trip: else ends that start at
one point hardly part, and heights take all. And a sample's error is relative to the larger of what was
measured and what was expected: one short round trip must not make an end uncertain for long.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import NamedTuple

_DIMENSIONS = 2
# The constants of the paper: how far a sample moves a point, and how fast the error follows.
_CC = _CE = 0.25
_ERROR_AT_FIRST = 1.0
# An estimate of which nothing is certain is taken times ten.
_ERROR_MAX = 0.9
# Points that coincide are pushed apart in a random direction; heights are never less than this.
_TINY_US = 1.0


class Estimate(NamedTuple):
    """A round-trip time between two ends, and by how much the true one may exceed it, as far as is known."""

    rtt_us: int
    error_us: int


@dataclass(slots=True)
class Coordinate:
    """Where an end is. `error` is relative, below 1: the moving average of
    how far samples were from what was expected."""

    position_us: list[float] = field(default_factory=lambda: [0.0] * _DIMENSIONS)
    height_us: float = _TINY_US
    error: float = _ERROR_AT_FIRST
    sample_count: int = 0


class NetworkCoordinates:
    """The coordinates of all ends of which there is a sample, by id.

    Deterministic: the same samples in the same order and the same seed give the same coordinates.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._coordinates: dict[str, Coordinate] = {}

    def observe(self, from_id: str, to_id: str, rtt_us: int) -> None:
        """Take a sample.

        Raises:
            ValueError: the round-trip time is not above 0, or both ends are the same.
        """
        if rtt_us <= 0 or from_id == to_id:
            raise ValueError(
                f"{rtt_us} us from {from_id} to {to_id} is no sample; give two ends, and a time above 0"
            )
        one = self._coordinates.setdefault(from_id, Coordinate())
        other = self._coordinates.setdefault(to_id, Coordinate())
        apart_us = math.dist(one.position_us, other.position_us)
        expected_us = apart_us + one.height_us + other.height_us
        towards = self._direction(one, other, apart_us)
        sample_error = abs(expected_us - rtt_us) / max(expected_us, rtt_us)
        # Both weights before either end changes: the order of the ends must not matter.
        weight = _weight(one, other)
        longer_us = rtt_us - expected_us
        _move(one, [-part for part in towards], apart_us / expected_us, longer_us, weight, sample_error)
        _move(other, towards, apart_us / expected_us, longer_us, 1 - weight, sample_error)

    def coordinate(self, end_id: str) -> Coordinate | None:
        """Where an end is; None when there is no sample of it."""
        return self._coordinates.get(end_id)

    def forget(self, end_id: str) -> None:
        """An end is gone for good."""
        self._coordinates.pop(end_id, None)

    def estimate(self, from_id: str, to_id: str) -> Estimate | None:
        """The round-trip time between two ends; None when nothing is known of one of them."""
        one, other = self._coordinates.get(from_id), self._coordinates.get(to_id)
        if one is None or other is None:
            return None
        rtt_us = math.dist(one.position_us, other.position_us) + one.height_us + other.height_us
        error = min(_ERROR_MAX, one.error + other.error)
        return Estimate(round(rtt_us), math.ceil(rtt_us * error / (1 - error)))

    def _direction(self, one: Coordinate, other: Coordinate, apart_us: float) -> list[float]:
        """The unit vector from one point to the other."""
        if apart_us >= _TINY_US:
            return [(b - a) / apart_us for a, b in zip(one.position_us, other.position_us, strict=True)]
        angle = self._random.uniform(0, 2 * math.pi)
        return [math.cos(angle), math.sin(angle)]


def _weight(one: Coordinate, other: Coordinate) -> float:
    """How much of a sample's correction is for the one: all if only the other is certain."""
    total = one.error + other.error
    return one.error / total if total > 0 else 0.5


def _move(
    end: Coordinate, away: list[float], flat_part: float, longer_us: float, weight: float, sample_error: float
) -> None:
    """Move an end: its point away from the other's, and its height by its part in the round trip."""
    step_us = _CC * weight * longer_us
    end.position_us = [p + step_us * d for p, d in zip(end.position_us, away, strict=True)]
    end.height_us = max(_TINY_US, end.height_us + step_us * (1 - flat_part))
    end.error = sample_error * _CE * weight + end.error * (1 - _CE * weight)
    end.sample_count += 1
