"""Where promises were broken lately: nothing goes back there soon, and the later the more often it was."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S, LAST_S, GROWS_BY = 1800.0, 24 * 3600.0, 4
# A place that has kept its promises for so long after a hold begins anew.
FORGIVEN_AFTER_S = 24 * 3600.0


@dataclass(slots=True)
class _Break:
    """The newest of some breaks in a row."""

    at_s: float
    hold_s: float


class Holds:
    """By job, task group and site; times by one monotonic clock. In memory only: a new leader begins anew."""

    def __init__(self) -> None:
        self._breaks: dict[tuple[str, str, str], _Break] = {}

    def broke(self, job_id: str, group: str, site_id: str, now_s: float) -> None:
        """A task had to leave."""
        key = (job_id, group, site_id)
        known = self._breaks.get(key)
        if known is None or now_s - known.at_s > known.hold_s + FORGIVEN_AFTER_S:
            self._breaks[key] = _Break(now_s, FIRST_S)
        elif now_s - known.at_s >= known.hold_s:
            self._breaks[key] = _Break(now_s, min(GROWS_BY * known.hold_s, LAST_S))
        # Several tasks of a group leave at once: that is one break.

    def left_s(self, job_id: str, group: str, site_id: str, now_s: float) -> float:
        """How long tasks of the group are still not to go there; 0: they may."""
        known = self._breaks.get((job_id, group, site_id))
        # To the millisecond: a fraction of one that the clock has lost holds nobody.
        return max(0.0, round(known.at_s + known.hold_s - now_s, 3)) if known else 0.0

    def forget(self, now_s: float) -> None:
        """Drop what says nothing any more."""
        self._breaks = {
            key: known
            for key, known in self._breaks.items()
            if now_s - known.at_s <= known.hold_s + FORGIVEN_AFTER_S
        }
