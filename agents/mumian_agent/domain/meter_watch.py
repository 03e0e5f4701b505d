"""Whether a power meter can be believed: what stops, freezes, jumps or goes negative is noticed and said."""

from __future__ import annotations

from collections import deque
from statistics import median

_SEEN = 16  # readings that the usual level is the median of
_LEVEL_KNOWN_AFTER = 5
_JUMP_FACTOR = 10
# A level that stays after a jump is the new truth: a rack may have been switched on.
_JUMP_IS_REAL_AFTER = 5
_FROZEN_AFTER_S = 60.0
# A meter may well stand still while nothing changes; not while the load moves by so much.
_LOAD_MOVED_PERMILLE = 200
_TRUSTED_AGAIN_AFTER = 3


class MeterWatch:
    """Judges one meter reading after reading. The caller gives the time: seconds of any steady clock."""

    def __init__(self) -> None:
        self.fault = ""  # empty: it can be believed
        self._levels_mw: deque[int] = deque(maxlen=_SEEN)
        self._outliers_mw: list[int] = []
        self._same_mw, self._same_since_s = -1, 0.0
        self._load_min = self._load_max = 0
        self._good_in_a_row = _TRUSTED_AGAIN_AFTER

    def failed(self, reason: str) -> None:
        """It gave no reading."""
        self._blame(reason)

    def read(self, power_mw: int, load_permille: int, now_s: float) -> None:
        """It gave a reading, while the site was so busy."""
        if power_mw < 0:
            self._blame(f"reads {_watt(power_mw)}, less than nothing")
        elif reason := self._jumped(power_mw) or self._frozen(power_mw, load_permille, now_s):
            self._blame(reason)
        else:
            self._levels_mw.append(power_mw)
            self._good_in_a_row += 1
            if self._good_in_a_row >= _TRUSTED_AGAIN_AFTER:
                self.fault = ""

    def _blame(self, reason: str) -> None:
        self.fault, self._good_in_a_row = reason, 0

    def _jumped(self, power_mw: int) -> str:
        if len(self._levels_mw) < _LEVEL_KNOWN_AFTER:
            return ""
        usual_mw = int(median(self._levels_mw))
        if power_mw * _JUMP_FACTOR >= usual_mw and power_mw <= max(usual_mw, 1) * _JUMP_FACTOR:
            self._outliers_mw.clear()
            return ""
        self._outliers_mw.append(power_mw)
        if len(self._outliers_mw) >= _JUMP_IS_REAL_AFTER and _are_close(self._outliers_mw):
            self._levels_mw.clear()
            self._levels_mw.extend(self._outliers_mw)
            self._outliers_mw.clear()
            return ""
        del self._outliers_mw[:-_JUMP_IS_REAL_AFTER]
        return f"jumped from {_watt(usual_mw)} to {_watt(power_mw)}"

    def _frozen(self, power_mw: int, load_permille: int, now_s: float) -> str:
        if power_mw != self._same_mw:
            self._same_mw, self._same_since_s = power_mw, now_s
            self._load_min = self._load_max = load_permille
            return ""
        self._load_min = min(self._load_min, load_permille)
        self._load_max = max(self._load_max, load_permille)
        same_s = now_s - self._same_since_s
        if same_s < _FROZEN_AFTER_S or self._load_max - self._load_min < _LOAD_MOVED_PERMILLE:
            return ""
        return f"has read {_watt(power_mw)} for {same_s:.0f} s while the load moved"


def _are_close(levels_mw: list[int]) -> bool:
    return max(levels_mw) <= 2 * min(levels_mw)


def _watt(mw: int) -> str:
    return f"{mw / 1000:.1f} W"
