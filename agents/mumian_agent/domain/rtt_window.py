"""The newest round-trip times of one link, and their quantiles."""

from __future__ import annotations

from collections import deque


class RttWindow:
    """Forgets the oldest sample when it is full. Times are in microseconds."""

    def __init__(self, size: int) -> None:
        self._samples_us: deque[int] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._samples_us)

    def add(self, rtt_us: int) -> None:
        """Take a sample."""
        self._samples_us.append(rtt_us)

    def quantile_us(self, permille: int) -> int:
        """The smallest sample that at least so many thousandths of all do not exceed (nearest rank).

        Raises:
            ValueError: there is no sample.
        """
        if not self._samples_us:
            raise ValueError("a quantile of no samples; add one first")
        ordered = sorted(self._samples_us)
        rank = -(-permille * len(ordered) // 1000)
        return ordered[max(rank, 1) - 1]
