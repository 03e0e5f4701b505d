"""The virtual clock: what arrives, ends, breaks and heals, and when the backend is asked."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.account import Account, Running
from mumian_orchestrator.bench.sim.arrivals import Arrival, arrivals
from mumian_orchestrator.bench.sim.core_backend import Backend, Placed
from mumian_orchestrator.bench.sim.scenario import Event, Scenario

# The oldest that wait are asked about again at each tick; the rest stays in line.
WAITING_AT_ONCE = 2048
LOST_AFTER_S = 60


@dataclass(slots=True)
class Simulation:
    """One run. Decisions are made at ticks; tasks end at any time."""

    scenario: Scenario
    seed: int
    backend: Backend
    account: Account
    placements: list[Placed] = field(default_factory=list)
    keeps_placements: bool = False
    _running: dict[str, Running] = field(default_factory=dict)
    _waiting: dict[str, Arrival] = field(default_factory=dict)
    _ends: list[tuple[float, str]] = field(default_factory=list)
    _lost: list[tuple[float, Arrival]] = field(default_factory=list)
    _rtt_p99_us: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Tasks without a place."""
        return len(self._waiting) + len(self._lost)

    @property
    def running(self) -> int:
        """Tasks at their place."""
        return len(self._running)

    async def run(self, progress: Callable[[int], None] = lambda _: None) -> None:
        """From the first tick to the last."""
        coming = arrivals(self.scenario, self.seed)
        upcoming = next(coming, None)
        now_s = 0
        for now_s in range(0, self.scenario.duration_s + 1, self.scenario.tick_s):
            ended = self._end_tasks(now_s)
            ended += await self._change_world(now_s)
            self._give_up_lost(now_s)
            batch = []
            while upcoming is not None and upcoming.at_s <= now_s:
                batch.append(upcoming)
                self.account.arrived[self.scenario.jobs[upcoming.job_class].tenant] += 1
                upcoming = next(coming, None)
            waiting = list(itertools.islice(self._waiting.values(), WAITING_AT_ONCE))
            for task in batch:
                self._waiting[task.id] = task
            for placed in await self.backend.decide(now_s, ended, waiting, batch):
                self._begin(placed, now_s)
            progress(now_s)
        self._finish(now_s)

    def _begin(self, placed: Placed, now_s: int) -> None:
        task = self._waiting.pop(placed.task_id)
        running = Running(task, placed.site_id, placed.node_id, now_s + task.run_time_s)
        self._running[task.id] = running
        heapq.heappush(self._ends, (running.end_s, task.id))
        self.account.begin(running, now_s, self._rtt_p99_us)
        if self.keeps_placements:
            self.placements.append(placed)

    def _end_tasks(self, now_s: int) -> list[str]:
        ended = []
        while self._ends and self._ends[0][0] <= now_s:
            end_s, task_id = heapq.heappop(self._ends)
            running = self._running.get(task_id)
            if running is None or running.end_s != end_s:
                continue  # lost meanwhile
            del self._running[task_id]
            # The clock of a site never runs backwards: tasks end in order, and hours are whole ticks.
            self.account.end(running, end_s, self._rtt_p99_us)
            ended.append(task_id)
        return ended

    async def _change_world(self, now_s: int) -> list[str]:
        """What is different from this tick on; the tasks that are lost with a site."""
        before_s = now_s - self.scenario.tick_s
        turned = [
            e for e in self.scenario.events if before_s < e.at_s <= now_s or before_s < e.end_s <= now_s
        ]
        if now_s % 3600 and not turned:
            return []
        active = [e for e in self.scenario.events if e.at_s <= now_s < e.end_s]
        rtt_p99_us = world.links(self.scenario, [(e.zone, e.site) for e in active if e.kind == "link_cut"])
        if self._rtt_p99_us:
            self.account.count_promises(now_s, self._rtt_p99_us)
        changed = {k: rtt for k, rtt in rtt_p99_us.items() if self._rtt_p99_us.get(k) != rtt}
        self._rtt_p99_us = rtt_p99_us
        lost_sites = {e.site for e in active if e.kind == "site_loss"}
        hours = -(-self.scenario.duration_s // 3600) + 1
        sites = []
        for site in self.scenario.sites:
            account = self.account.sites[site.id]
            account.advance(now_s)
            account.pue_permille = site.pue_at(now_s // 3600, _extra_c(active, site.id))
            is_lost = site.id in lost_sites
            sites.append(world.site_message(site, hours, account.pue_permille, is_lost=is_lost))
        await self.backend.change(now_s, sites, changed)
        return self._lose_tasks(lost_sites, now_s)

    def _lose_tasks(self, site_ids: set[str], now_s: int) -> list[str]:
        gone = [r for r in self._running.values() if r.site_id in site_ids] if site_ids else []
        for running in gone:
            del self._running[running.task.id]
            self.account.end(running, now_s, self._rtt_p99_us)
            self.account.lost += 1
            self._lost.append((now_s + LOST_AFTER_S, running.task._replace(at_s=now_s)))
        return [running.task.id for running in gone]

    def _give_up_lost(self, now_s: int) -> None:
        """Tasks of a lost site wait again once they count as lost."""
        for due_s, task in self._lost:
            if due_s <= now_s:
                self._waiting[task.id] = task
        self._lost = [(due_s, task) for due_s, task in self._lost if due_s > now_s]

    def _finish(self, now_s: int) -> None:
        self.account.count_promises(now_s, self._rtt_p99_us)
        for site in self.account.sites.values():
            site.advance(now_s)
        for task in [*self._waiting.values(), *(task for _, task in self._lost)]:
            self.account.still_waits(task, now_s)


def _extra_c(active: list[Event], site_id: str) -> float:
    return sum(e.extra_c for e in active if e.kind == "heat" and e.site == site_id)
