"""Round trips that nobody measures now, estimated from those that somebody does."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Iterable, Iterator

from mumian.api.v1.fleet_pb2 import FIGURE_SOURCE_MEASURED, FIGURE_SOURCE_MODELLED, Link

from mumian_orchestrator.domain.network_coordinates import NetworkCoordinates
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.scheduler import Scheduler

log = logging.getLogger(__name__)

# A measurement without a successor for so long counts no more.
FRESH_S = 300.0
_REFRESH_EVERY_S = 5.0
# A pair that was not measured for so long tells nothing of the others any more.
_KEPT_S = 3600.0
# Rounds of a fit at each refresh: what 10,000 pairs take in a tenth of a second, fewer of more pairs.
_ROUNDS_MAX, _ROUNDS_MIN, _ROUNDS_TIMES_PAIRS = 100, 10, 1_000_000
# Of so many pairs at a time, the others have their turn next; and of so many before others have theirs.
_PAIRS_AT_ONCE, _PAIRS_IN_ONE_GO = 5000, 200
# An estimate that moves by less than a tenth is not worth another look at all that waits.
_CHANGE = 0.1


class LinkEstimates:
    """Gives the fleet an estimate of each link from a zone, and between two sites, that has no fresh
    measurement: `rtt_p99_us` is the estimate plus its error, for promises count with both. There is none as
    long as nothing was measured of one of its ends.
    """

    def __init__(self, fleet: Fleet, scheduler: Scheduler, clock: Clock) -> None:
        self._fleet, self._scheduler, self._clock = fleet, scheduler, clock
        self._p50, self._p99 = NetworkCoordinates(), NetworkCoordinates()
        self._measured_s: dict[tuple[str, str], float] = {}
        self._turn: Iterator[tuple[str, str]] = iter(())

    async def run(self) -> None:
        """Refresh again and again, until cancelled."""
        while True:
            await asyncio.sleep(_REFRESH_EVERY_S)
            try:
                if await self._refresh():
                    self._scheduler.evaluate_waiting()
            except Exception:
                # Nobody depends on it, so a defect here must not end the term.
                log.exception("defect: links were not estimated")

    def observe(self, links: Iterable[Link]) -> None:
        """Learn from what a site has measured."""
        now_s = self._clock.monotonic_s()
        for link in links:
            key = link.from_id, link.to_site_id
            if link.source == FIGURE_SOURCE_MEASURED and len(set(key)) == 2 and link.rtt_p50_us:
                self._measured_s[key] = now_s
                self._p50.observe(*key, link.rtt_p50_us)
                self._p99.observe(*key, max(link.rtt_p99_us, link.rtt_p50_us))

    async def _refresh(self) -> bool:
        """Estimate the pairs whose turn it is; whether any estimate is news."""
        pairs = list(itertools.islice(self._turn, _PAIRS_AT_ONCE))
        if len(pairs) < _PAIRS_AT_ONCE:
            self._forget_old()
            self._turn = self._pairs()
        await asyncio.sleep(0)
        if all(self._is_known(pair) for pair in pairs):
            return False
        await self._fit(self._p50)
        await self._fit(self._p99)
        changed = False
        for begin in range(0, len(pairs), _PAIRS_IN_ONE_GO):
            changed |= self._tell(self._unmeasured(pairs[begin : begin + _PAIRS_IN_ONE_GO]))
            await asyncio.sleep(0)
        return changed

    def _tell(self, pairs: Iterable[tuple[str, str]]) -> bool:
        links = [link for pair in pairs if (link := self._estimate(*pair)) is not None]
        news = [link for link in links if self._is_news(link)]
        if news:
            self._fleet.set_links(news)
        return bool(news)

    async def _fit(self, coordinates: NetworkCoordinates) -> None:
        affordable = _ROUNDS_TIMES_PAIRS // max(1, coordinates.sample_count)
        for _ in coordinates.fit(max(_ROUNDS_MIN, min(_ROUNDS_MAX, affordable))):
            await asyncio.sleep(0)

    def _forget_old(self) -> None:
        now_s = self._clock.monotonic_s()
        old = [key for key, at_s in self._measured_s.items() if now_s - at_s > _KEPT_S]
        for key in old:
            del self._measured_s[key]
        if old:
            self._p50.forget(old)
            self._p99.forget(old)

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """Every zone with every site, then the sites with one another, each pair once."""
        site_ids = [site.id for site in self._fleet.all_sites() if self._fleet.is_reachable(site.id)]
        yield from itertools.product(self._fleet.zones, site_ids)
        yield from itertools.combinations(sorted(site_ids), 2)

    def _unmeasured(self, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        return [pair for pair in pairs if not self._is_known(pair)]

    def _is_known(self, pair: tuple[str, str]) -> bool:
        """Whether it is measured, from one end or from the other."""
        since_s = self._clock.monotonic_s() - FRESH_S
        return any(self._measured_s.get(key, -math.inf) > since_s for key in (pair, pair[::-1]))

    def _estimate(self, from_id: str, to_site_id: str) -> Link | None:
        p50, p99 = self._p50.estimate(from_id, to_site_id), self._p99.estimate(from_id, to_site_id)
        if p50 is None or p99 is None:
            return None
        link = Link(
            from_id=from_id,
            to_site_id=to_site_id,
            rtt_p50_us=min(p50.rtt_us, p99.rtt_us),
            rtt_p99_us=p99.rtt_us + p99.error_us,
            rtt_error_us=p99.error_us,
            source=FIGURE_SOURCE_MODELLED,
            sample_time=self._clock.now(),
        )
        if (known := self._fleet.link(from_id, to_site_id)) is not None:
            link.bandwidth_kbps = known.bandwidth_kbps
        return link

    def _is_news(self, link: Link) -> bool:
        known = self._fleet.link(link.from_id, link.to_site_id)
        return (
            known is None
            or known.source != FIGURE_SOURCE_MODELLED
            or abs(link.rtt_p99_us - known.rtt_p99_us) > _CHANGE * known.rtt_p99_us
        )
