"""The brake on replacements: when many sites vanish at once, most likely none of them has failed."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from mumian.api.v1.fleet_pb2 import DisconnectBrake

from mumian_orchestrator.ports.clock import Clock

log = logging.getLogger(__name__)

# One site that vanishes is an event of its own, however large its share.
_VANISHED_MIN = 2


@dataclass(frozen=True, slots=True)
class BrakePolicy:
    """Engages when more than this share of the sites vanishes within the window; releases by itself."""

    share_percent: int
    window_s: float
    release_after_s: float


class Brake:
    """Counts the sites that vanish. Engaged, it holds back every replacement of a lost task.

    It is released when enough sites are back, after a time, or by an operator; sites that had vanished
    before a release do not engage it again.
    """

    def __init__(self, policy: BrakePolicy, clock: Clock) -> None:
        self._policy, self._clock = policy, clock
        self._vanished_s: dict[str, float] = {}
        self._site_count = 0
        self._engaged_s: float | None = None
        self._shown = DisconnectBrake()

    @property
    def is_engaged(self) -> bool:
        """Whether lost tasks are not to be replaced now."""
        return self._engaged_s is not None

    def vanished(self, site_ids: Iterable[str], reachable_count: int) -> None:
        """These have just become unreachable; so many are still reachable."""
        now_s = self._clock.monotonic_s()
        self._vanished_s.update(dict.fromkeys(site_ids, now_s))
        if not self.is_engaged:
            self._vanished_s = {
                site_id: since_s
                for site_id, since_s in self._vanished_s.items()
                if now_s - since_s <= self._policy.window_s
            }
        self._site_count = reachable_count + len(self._vanished_s)
        if not self.is_engaged and self._is_mass():
            self._engaged_s = now_s
            self._shown.engage_time.CopyFrom(self._clock.now())
            self._shown.release_time.FromNanoseconds(
                self._shown.engage_time.ToNanoseconds() + int(self._policy.release_after_s * 1e9)
            )
            log.error("%s", self.show().summary)

    def returned(self, site_id: str) -> None:
        """It is reachable again."""
        self._vanished_s.pop(site_id, None)
        if self.is_engaged and not self._is_mass():
            self._let_go("enough sites are back")

    def tick(self) -> None:
        """Release it when its time has come."""
        if self._engaged_s is not None:
            held_s = self._clock.monotonic_s() - self._engaged_s
            if held_s >= self._policy.release_after_s:
                self._let_go(f"it has held for {held_s:.0f} s")

    def release(self) -> None:
        """An operator wants replacements, whatever is silent."""
        if self.is_engaged:
            self._let_go("an operator said so")

    def show(self) -> DisconnectBrake:
        """As people see it."""
        if self._engaged_s is None:
            return DisconnectBrake(site_count=self._site_count)
        self._shown.engaged = True
        self._shown.silent_site_count = len(self._vanished_s)
        self._shown.site_count = self._site_count
        left_s = max(0.0, self._engaged_s + self._policy.release_after_s - self._clock.monotonic_s())
        self._shown.summary = (
            f"{len(self._vanished_s)} of {self._site_count} sites vanished within "
            f"{self._policy.window_s:.0f} s, which looks like a fault of the network: lost tasks are not "
            f"replaced until enough are back, for {left_s:.0f} s at most; "
            "`mumian brake --release` releases it now"
        )
        return self._shown

    def _is_mass(self) -> bool:
        count = len(self._vanished_s)
        return count >= _VANISHED_MIN and 100 * count > self._policy.share_percent * self._site_count

    def _let_go(self, why: str) -> None:
        log.warning("the disconnect brake is released: %s", why)
        self._engaged_s = None
        self._vanished_s.clear()
        self._shown = DisconnectBrake()
