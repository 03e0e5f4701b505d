"""How many requests a second are answered: of each sender, and of all together."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    """Holds at most one second's worth of tokens, and is filled at the same rate."""

    tokens: float
    filled_ns: int

    def fill(self, per_second: int, now_ns: int) -> None:
        self.tokens = min(per_second, self.tokens + (now_ns - self.filled_ns) * 1e-9 * per_second)
        self.filled_ns = now_ns


class RateLimit:
    """Token buckets; of those who have been quiet for longest only so many are remembered."""

    def __init__(self, sender_per_second: int, all_per_second: int, senders_max: int) -> None:
        self._sender_per_second, self._all_per_second = sender_per_second, all_per_second
        self._senders_max = senders_max
        self._all = _Bucket(all_per_second, 0)
        self._senders: OrderedDict[str, _Bucket] = OrderedDict()

    def admits(self, sender: str, now_ns: int) -> bool:
        """Whether one more of this sender is within the limits now; `now_ns` never goes back."""
        bucket = self._senders.pop(sender, None) or _Bucket(self._sender_per_second, now_ns)
        self._senders[sender] = bucket
        if len(self._senders) > self._senders_max:
            self._senders.popitem(last=False)
        bucket.fill(self._sender_per_second, now_ns)
        self._all.fill(self._all_per_second, now_ns)
        if bucket.tokens < 1 or self._all.tokens < 1:
            return False
        bucket.tokens -= 1
        self._all.tokens -= 1
        return True
