"""A measured matrix replayed through the coordinates that the coordinator keeps."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mumian_orchestrator.domain.network_coordinates import NetworkCoordinates

# More pairs than this tell nothing more: the median of so many drawn ones is within 0.4 % of ranks.
_PAIRS_MAX = 20_000
# The coordinator fits as many in three looks.
_ROUNDS = 300


class Accuracy(NamedTuple):
    """How well round trips are known that nobody has measured, after so many samples by each node."""

    seed: int
    samples_per_node: int
    pair_count: int
    median_relative_error: float
    p90_relative_error: float
    # Pairs whose round trip is within estimate plus error.
    within_error_permille: int
    # The same pairs, when every one is said to be the median of what was measured.
    constant_median_relative_error: float


def replay(
    matrix_us: Sequence[Sequence[int]], samples_per_node: Sequence[int], neighbours: int, seed: int
) -> Iterator[Accuracy]:
    """Let every node, in random order, measure one of its `neighbours` at random, again and again.

    Yields how it stands after each of the `samples_per_node`, by the pairs that are nobody's neighbours.

    The relative error is |estimate - measured| / measured.
    """
    draw = random.Random(seed)
    nodes = range(len(matrix_us))
    coordinates = NetworkCoordinates(seed)
    chosen = [_chosen(draw, matrix_us[node], node, neighbours) for node in nodes]
    measured = {frozenset((node, peer)) for node in nodes for peer in chosen[node]}
    hidden = [
        (a, b)
        for a in nodes
        for b in nodes
        if a != b and matrix_us[a][b] > 0 and frozenset((a, b)) not in measured
    ]
    hidden = draw.sample(hidden, min(len(hidden), _PAIRS_MAX))
    middle_us = statistics.median_low([matrix_us[a][b] for a in nodes for b in chosen[a]] or [0])
    for sample in range(1, max(samples_per_node) + 1):
        for node in draw.sample(nodes, len(nodes)):
            if chosen[node]:
                peer = draw.choice(chosen[node])
                coordinates.observe(str(node), str(peer), matrix_us[node][peer])
        if sample in samples_per_node and hidden:
            for _ in coordinates.fit(_ROUNDS):
                pass
            yield _accuracy(coordinates, matrix_us, hidden, middle_us, sample, seed)


def _chosen(draw: random.Random, row_us: Sequence[int], node: int, neighbours: int) -> list[int]:
    reachable = [peer for peer, rtt_us in enumerate(row_us) if peer != node and rtt_us > 0]
    return draw.sample(reachable, min(neighbours, len(reachable)))


def _accuracy(
    coordinates: NetworkCoordinates,
    matrix_us: Sequence[Sequence[int]],
    hidden: Sequence[tuple[int, int]],
    middle_us: int,
    sample: int,
    seed: int,
) -> Accuracy:
    errors, constant_errors, within = [], [], 0
    for a, b in hidden:
        rtt_us = matrix_us[a][b]
        estimate = coordinates.estimate(str(a), str(b))
        if estimate is not None:
            errors.append(abs(estimate.rtt_us - rtt_us) / rtt_us)
            constant_errors.append(abs(middle_us - rtt_us) / rtt_us)
            within += rtt_us <= estimate.rtt_us + estimate.error_us
    errors.sort()
    return Accuracy(
        seed=seed,
        samples_per_node=sample,
        pair_count=len(errors),
        median_relative_error=statistics.median(errors),
        p90_relative_error=errors[len(errors) * 9 // 10],
        within_error_permille=1000 * within // len(errors),
        constant_median_relative_error=statistics.median(constant_errors),
    )
