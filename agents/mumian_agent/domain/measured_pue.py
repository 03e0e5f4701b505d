"""PUE from two meters: the average as a ratio of energies, the marginal by regression, over a sliding window.

Average: ISO/IEC 30134-2 defines PUE as facility energy / IT energy over the same span. Marginal: the slope of
the least-squares line of facility power over IT power, that is what one more watt of IT adds at the meter.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

# Both meters are read at nearly, not exactly, the same moment: single readings would make the slope too flat.
_BIN_S = 30.0
_AVERAGE_NEEDS_BINS = 2
_SLOPE_NEEDS_BINS = 20
# Without so much spread of IT power (standard deviation over mean) the slope would be noise.
_SLOPE_NEEDS_SPREAD_PERMILLE = 30
# And the line must explain so much of what the meter did.
_SLOPE_NEEDS_R2_PERMILLE = 500
_PUE_LEAST_PERMILLE, _PUE_MOST_PERMILLE = 1000, 10_000


class _Bin(NamedTuple):
    """The mean powers over one span."""

    at_s: float
    it_mw: int
    facility_mw: int


class MeasuredPue:
    """Two meters over a sliding window. Times are seconds of any steady clock."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._bins: deque[_Bin] = deque()
        self._open_since_s = 0.0
        self._open: list[tuple[int, int]] = []

    def add(self, now_s: float, it_mw: int, facility_mw: int) -> None:
        """One reading of both meters."""
        if now_s - self._open_since_s > 2 * _BIN_S:
            self._open.clear()  # there was a gap: what is left of before it is of another time
        if not self._open:
            self._open_since_s = now_s
        self._open.append((it_mw, facility_mw))
        if now_s - self._open_since_s >= _BIN_S:
            count = len(self._open)
            it_mean, facility_mean = (sum(each) // count for each in zip(*self._open, strict=True))
            self._bins.append(_Bin(now_s, it_mean, facility_mean))
            self._open.clear()
        self.forget(now_s)

    def forget(self, now_s: float) -> None:
        """Drop what has left the window."""
        while self._bins and self._bins[0].at_s < now_s - self._window_s:
            self._bins.popleft()

    def average_permille(self) -> int | None:
        """None while too little is known, or when the meters contradict each other (a PUE below 1)."""
        it_mw = sum(each.it_mw for each in self._bins)
        if len(self._bins) < _AVERAGE_NEEDS_BINS or it_mw <= 0:
            return None
        return _if_possible(sum(each.facility_mw for each in self._bins) * 1000 // it_mw)

    def marginal_permille(self) -> int | None:
        """None where there are too few readings, too even a load, or no line that explains them."""
        count = len(self._bins)
        if count < _SLOPE_NEEDS_BINS:
            return None
        it = [each.it_mw for each in self._bins]
        facility = [each.facility_mw for each in self._bins]
        # Whole numbers throughout: count x count times the (co)variances.
        it_var = count * sum(x * x for x in it) - sum(it) ** 2
        facility_var = count * sum(y * y for y in facility) - sum(facility) ** 2
        both = count * sum(x * y for x, y in zip(it, facility, strict=True)) - sum(it) * sum(facility)
        if it_var * 1000**2 < (_SLOPE_NEEDS_SPREAD_PERMILLE * sum(it)) ** 2 or it_var == 0:
            return None
        if both <= 0 or both * both * 1000 < _SLOPE_NEEDS_R2_PERMILLE * it_var * facility_var:
            return None
        return _if_possible(both * 1000 // it_var)


def _if_possible(permille: int) -> int | None:
    return permille if _PUE_LEAST_PERMILLE <= permille <= _PUE_MOST_PERMILLE else None
