"""Keeps Python's collector of reference cycles from stopping the event loop."""

from __future__ import annotations

import asyncio
import gc

_GROWN_TIMES = 2
_EVERY_S = 0.1
# New objects that are worth a look; those of several looks that are worth a second one, after which they are
# looked at no more; and so many at once that a look would take too long. A look takes up to 1 ms for 1,000.
_NEW_MIN, _YOUNG_MIN, _NEW_MAX = 2000, 8000, 30_000
# After a look at all was not worth it: when to see again, in parts of the time between two of them.
_AGAIN = 0.1


class CycleCollector:
    """What outlives two looks of the collector is not looked at again until there is twice as much of it, and
    an hour is over.

    By itself CPython looks at every container object whenever those that are new are a quarter of all, and
    nothing else runs meanwhile: 87 ms with 8,000 jobs, and in proportion with more. And it counts the objects
    that come less those that go: of a thousand sites, whose reports replace one another, it sees nothing new
    for long, and looks at 45,000 at once then. So here looks are at the new ones only, ten times a second if
    there is enough, and cycles that are kept for long wait for the next look at all.
    """

    def __init__(self, look_every_s: float = 3600.0) -> None:
        self._loop, self._look_every_s = asyncio.get_running_loop(), look_every_s
        self._kept_at_look = 0
        self._next_look_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """From now on."""
        self.look_at_all()
        gc.disable()
        self._look_again()

    def stop(self) -> None:
        """As Python does it by itself."""
        if self._timer is not None:
            self._timer.cancel()
        gc.enable()
        gc.unfreeze()

    def look(self) -> None:
        """Find cycles of new objects, if there are enough of those."""
        new = len(gc.get_objects(generation=0))
        if new < _NEW_MIN:
            return
        young = new + len(gc.get_objects(generation=1))
        if young < _YOUNG_MIN:
            gc.collect(0)
            return
        if new <= _NEW_MAX:
            gc.collect(1)
        gc.freeze()
        now_s = self._loop.time()
        if now_s < self._next_look_s:
            return
        if gc.get_freeze_count() > _GROWN_TIMES * self._kept_at_look:
            self.look_at_all()
        else:
            self._next_look_s = now_s + _AGAIN * self._look_every_s

    def look_at_all(self) -> None:
        """Find all cycles there are; takes about 0.7 ms for each 1,000 objects."""
        self._next_look_s = self._loop.time() + self._look_every_s
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._kept_at_look = gc.get_freeze_count()

    def _look_again(self) -> None:
        self.look()
        self._timer = self._loop.call_later(_EVERY_S, self._look_again)
