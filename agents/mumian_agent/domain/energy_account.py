"""Where the IT energy of a node went: every microjoule of its meter is somebody's.

Of each span the node's idle energy comes off first: what it takes when nothing runs, which no allocation is
charged for. The rest is split in proportion to what a model says that each has used (processor time times
the power of a core, plus its shares of devices), by largest remainder (Hamilton's method), so that the parts
add up exactly. What the node's processors did beyond all allocations is the share of others. So the model
says who, and the meter how much.

An allocation that ends between two closings cannot wait for the meter: its receipt is final. It is charged by
the rate of the last span, and what the meter reads next is lessened by that; until then it is `advanced`.
Always: metered + advanced = allocations + others + idle. Without a meter the model takes the meter's place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from fractions import Fraction
from typing import Generic, TypeVar

from mumian.api.v1.fleet_pb2 import FIGURE_SOURCE_MEASURED, FIGURE_SOURCE_MODELLED, NodeEnergy

Key = TypeVar("Key", bound=Hashable)

# A node's idle power is the least of what its meter read beyond the model, over so many spans.
_IDLE_SPANS = 360
# A meter and a model that are further apart than this do not measure the same thing.
_RATE_LEAST, _RATE_MOST = Fraction(1, 10), Fraction(10)


class NodeAccount(Generic[Key]):
    """One node. Energies are in microjoule; a milliwatt for a millisecond is one."""

    def __init__(self, node_id: str, idle_power_mw: int | None = None) -> None:
        """`idle_power_mw` None: learned from the meter."""
        self._energy = NodeEnergy(node_id=node_id)
        self._idle_power_mw = idle_power_mw
        self._idle_seen_mw: deque[int] = deque(maxlen=_IDLE_SPANS)
        self._modelled_uj: dict[Key, int] = {}  # of live allocations, as of the last closing
        self._charged_uj: dict[Key, int] = {}
        self._settled_model_uj = 0  # of those that ended since the last closing
        self._rate = Fraction(1)

    def open(self, key: Key, modelled_uj: int, charged_uj: int) -> None:
        """An allocation begins, or goes on after the agent was away; it has been charged so much before."""
        self._modelled_uj[key], self._charged_uj[key] = modelled_uj, charged_uj

    def knows(self, key: Key) -> bool:
        """Whether an allocation is open."""
        return key in self._charged_uj

    def charged_uj(self, key: Key) -> int:
        """What a live allocation has been charged so far."""
        return self._charged_uj.get(key, 0)

    def energy(self) -> NodeEnergy:
        """Where all of it went, so far."""
        copy = NodeEnergy()
        copy.CopyFrom(self._energy)
        return copy

    def settle(self, key: Key, modelled_uj: int) -> int:
        """An allocation has ended, with so much by the model; what it is charged in all."""
        used_uj = max(0, modelled_uj - self._modelled_uj.pop(key, 0))
        charge_uj = int(used_uj * self._rate)
        self._settled_model_uj += used_uj
        self._energy.advanced_uj += charge_uj
        self._energy.allocations_uj += charge_uj
        return self._charged_uj.pop(key, 0) + charge_uj

    def close(
        self, span_ms: int, metered_uj: int | None, node_modelled_uj: int, modelled_uj: Mapping[Key, int]
    ) -> None:
        """A span is over.

        Args:
            metered_uj: what the node's meter has counted; None: it has none that can be believed.
            node_modelled_uj: what the model says that all processes of the node have used.
            modelled_uj: what the model says of each live allocation, since it began.
        """
        used_uj = {
            key: max(0, modelled_uj.get(key, before_uj) - before_uj)
            for key, before_uj in self._modelled_uj.items()
        }
        of_allocations_uj = sum(used_uj.values()) + self._settled_model_uj
        others_uj = max(0, node_modelled_uj - of_allocations_uj)
        by_model_uj = of_allocations_uj + others_uj
        idle_mw = self._idle_mw(span_ms, metered_uj, by_model_uj)
        total_uj = by_model_uj + idle_mw * span_ms if metered_uj is None else metered_uj
        idle_uj = min(total_uj, idle_mw * span_ms)
        rest_uj = total_uj - idle_uj
        if by_model_uj:
            self._rate = min(max(Fraction(rest_uj, by_model_uj), _RATE_LEAST), _RATE_MOST)
        paid_uj = min(rest_uj, self._energy.advanced_uj)
        # The last place is that of the others.
        parts_uj = split(rest_uj - paid_uj, [*used_uj.values(), others_uj])
        if not any((*used_uj.values(), others_uj)):
            idle_uj, parts_uj[-1] = idle_uj + parts_uj[-1], 0
        for (key, used), part_uj in zip(used_uj.items(), parts_uj[:-1], strict=True):
            self._charged_uj[key] += part_uj
            self._modelled_uj[key] += used
        energy = self._energy
        energy.source = FIGURE_SOURCE_MODELLED if metered_uj is None else FIGURE_SOURCE_MEASURED
        energy.metered_uj += total_uj
        energy.advanced_uj -= paid_uj
        energy.allocations_uj += sum(parts_uj[:-1])
        energy.others_uj += parts_uj[-1]
        energy.idle_uj += idle_uj
        self._settled_model_uj = 0

    def _idle_mw(self, span_ms: int, metered_uj: int | None, by_model_uj: int) -> int:
        if self._idle_power_mw is not None:
            return self._idle_power_mw
        if metered_uj is None or span_ms <= 0:
            return 0
        self._idle_seen_mw.append(max(0, metered_uj - by_model_uj) // span_ms)
        return min(self._idle_seen_mw)


def split(total: int, weights: list[int]) -> list[int]:
    """Whole parts of a total that add up to it, in proportion to weights, each within 1 of its exact part.

    Nothing is negative. Ties go to the first. All of it goes to the last when no weight is above 0.
    """
    if not weights:
        raise ValueError("nobody to split among; give at least one weight")
    whole = sum(weights)
    if whole == 0:
        return [0] * (len(weights) - 1) + [total]
    parts = [total * weight // whole for weight in weights]
    left = total - sum(parts)
    by_remainder = sorted(range(len(weights)), key=lambda n: -(total * weights[n] % whole))
    for n in by_remainder[:left]:
        parts[n] += 1
    return parts
