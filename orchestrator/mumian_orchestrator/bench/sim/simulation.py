"""The virtual clock: what arrives, ends, breaks and heals, and when the backend is asked."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mumian.api.v1.fleet_pb2 import HEALTH_DRAINING, HEALTH_READY, HEALTH_UNREACHABLE, Health, Site

from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.account import Account, Running
from mumian_orchestrator.bench.sim.arrivals import Arrival, arrivals
from mumian_orchestrator.bench.sim.backend import Backend, Placed
from mumian_orchestrator.bench.sim.gauge import Gauge, Reading
from mumian_orchestrator.bench.sim.links import Links, LinkState, Pair, links_at
from mumian_orchestrator.bench.sim.scenario import Event, Scenario

# The oldest that wait are asked about again at each tick; the rest stays in line.
WAITING_AT_ONCE = 2048
LOST_AFTER_S = 60
# Points of the report's curves.
SAMPLES = 96


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stand at one moment, after its decisions.

    Args:
        inside_slo: since the sample before; None: nothing was under a promise.
        meter_kw: by site, with machines that are on.
    """

    at_s: int
    running: int
    waiting: int
    core_share: float
    inside_slo: float | None
    meter_kw: dict[str, float]


@dataclass(slots=True)
class Simulation:
    """One run. Decisions are made at ticks; tasks end at any time.

    Args:
        readings_wanted: how often the gauge is read, evenly over the run; 0: never.
    """

    scenario: Scenario
    seed: int
    backend: Backend
    account: Account
    readings_wanted: int = 24
    keeps_placements: bool = False
    placements: list[Placed] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    _now_s: int = 0  # of the newest tick
    _running: dict[str, Running] = field(default_factory=dict)
    _moving: dict[str, Running] = field(default_factory=dict)  # the copies that are to take over
    _waiting: dict[str, Arrival] = field(default_factory=dict)
    _turns: list[tuple[float, str]] = field(default_factory=list)  # when tasks are up, and when they end
    _lost: list[tuple[float, Arrival]] = field(default_factory=list)
    _links: dict[Pair, LinkState] = field(default_factory=dict)
    _sites: list[Site] = field(default_factory=list)
    _gauge: Gauge | None = None
    _promises_sampled: tuple[float, float] = (0.0, 0.0)

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
        last_s = self.scenario.duration_s // self.scenario.tick_s * self.scenario.tick_s
        sample_s = self._every_s(SAMPLES)
        reading_s = self._every_s(self.readings_wanted) if self.readings_wanted else 0
        coming = arrivals(self.scenario, self.seed)
        upcoming = next(coming, None)
        self.backend.stage = self
        now_s = 0
        for now_s in range(0, self.scenario.duration_s + 1, self.scenario.tick_s):
            self._now_s = now_s
            await self.backend.turn(now_s, *self._turn_tasks(now_s))
            lost = await self._change_world(now_s)
            self._give_up_lost(now_s)
            batch = []
            while upcoming is not None and upcoming.at_s <= now_s:
                batch.append(upcoming)
                self.account.tenant_of(upcoming).arrived += 1
                upcoming = next(coming, None)
            waiting = self._oldest_waiting()
            for task in batch:
                self._waiting[task.id] = task
            for placed in await self.backend.decide(now_s, lost, waiting, batch):
                self._begin(placed, now_s)
            await self.backend.rearrange(now_s)
            if now_s % sample_s == 0 or now_s == last_s:
                self._sample(now_s)
            if reading_s and now_s and (now_s % reading_s == 0 or now_s == last_s):
                self._read(now_s)
            progress(now_s)
        self._finish(now_s)

    def _oldest_waiting(self) -> list[Arrival]:
        """Those that are asked about; of the last job all tasks, as a gang is placed whole."""
        found: list[Arrival] = []
        for task in self._waiting.values():
            if len(found) >= WAITING_AT_ONCE and task.job_id != found[-1].job_id:
                break
            found.append(task)
        return found

    def _every_s(self, times: int) -> int:
        """Whole ticks between so many points of the run."""
        ticks = self.scenario.duration_s // self.scenario.tick_s
        return -(-ticks // times) * self.scenario.tick_s

    def running_tasks(self) -> list[Running]:
        """All that runs, with its places."""
        return list(self._running.values())

    def waiting_tasks(self) -> list[Arrival]:
        """All that waits for a place."""
        return [*self._waiting.values(), *(task for _, task in self._lost)]

    def world(self) -> tuple[list[Site], Links]:
        """Sites and links as they are."""
        return self._sites, self._links

    def _begin(self, placed: Placed, now_s: int) -> None:
        task = self._waiting.pop(placed.task_id)
        up_s = now_s + self.scenario.jobs[task.job_class].start_s
        end_s = up_s + task.run_time_s
        running = Running(task, placed.site_id, placed.node_id, up_s, end_s, placed.devices_milli)
        self._running[task.id] = running
        heapq.heappush(self._turns, (end_s, task.id))
        if up_s > now_s:
            heapq.heappush(self._turns, (up_s, task.id))
        else:
            self._up(running)
        if self.keeps_placements:
            self.placements.append(placed)

    def _up(self, running: Running) -> None:
        running.is_up = True
        self.account.begin(running, running.up_s, self._links)

    def begin_move(self, placed: Placed) -> bool:
        """A second copy holds its room from now on, and takes over once it is up; whether it is at once."""
        here = self._running[placed.task_id]
        up_s = self._now_s + self.scenario.jobs[here.task.job_class].start_s
        self._moving[placed.task_id] = replace(
            here,
            site_id=placed.site_id,
            node_id=placed.node_id,
            up_s=up_s,
            devices_milli=placed.devices_milli,
        )
        if up_s <= self._now_s:
            self._take_over(placed.task_id)
            return True
        heapq.heappush(self._turns, (up_s, placed.task_id))
        return False

    def give_up_move(self, task_id: str) -> None:
        """Its copy is stopped before it was up."""
        del self._moving[task_id]

    def _take_over(self, task_id: str) -> None:
        old, new = self._running[task_id], self._moving.pop(task_id)
        self._running[task_id] = new
        self.account.move(old, new, new.up_s, self._links)
        if self.keeps_placements:
            self.placements.append(Placed(task_id, new.site_id, new.node_id, new.devices_milli))

    def _sample(self, now_s: int) -> None:
        self.account.count_promises(now_s, self._links)
        hard = self.account.promises(hard=True)
        kept_s, promised_s = hard.kept_task_s, hard.task_s
        spent_s = promised_s - self._promises_sampled[1]
        share = (kept_s - self._promises_sampled[0]) / spent_s if spent_s > 0 else None
        self._promises_sampled = (kept_s, promised_s)
        sites = self.account.sites
        cores = sum(1000 * g.count * g.cores for site in self.scenario.sites for g in site.nodes)
        self.samples.append(
            Sample(
                now_s,
                self.running,
                self.waiting,
                sum(site.cpu_milli for site in sites.values()) / cores,
                share,
                {i: (s.it_power_mw + s.idle_power_mw) * s.pue_permille / 1e9 for i, s in sites.items()},
            )
        )

    def _read(self, now_s: int) -> None:
        if self._gauge is None:
            self._gauge = Gauge(self.scenario)
        reading = self._gauge.read(now_s, self._sites, self._links, self._running.values())
        self.readings.append(reading)

    def _turn_tasks(self, now_s: int) -> tuple[list[str], list[str]]:
        """What is up by now, and what has ended; in order of time."""
        up, ended = [], []
        while self._turns and self._turns[0][0] <= now_s:
            at_s, task_id = heapq.heappop(self._turns)
            running, moving = self._running.get(task_id), self._moving.get(task_id)
            # The clock of a site never runs backwards: turns come in order, and hours are whole ticks.
            if running is None:
                continue  # lost meanwhile
            if moving is not None and at_s == moving.up_s:
                self._take_over(task_id)
                up.append(task_id)
            elif at_s == running.up_s and not running.is_up:
                self._up(running)
                up.append(task_id)
            elif at_s == running.end_s:
                del self._running[task_id]
                self._moving.pop(task_id, None)
                self.account.end(running, at_s, self._links)
                ended.append(task_id)
        return up, ended

    async def _change_world(self, now_s: int) -> list[str]:
        """What is different from this tick on; the tasks that are lost with a site."""
        before_s = now_s - self.scenario.tick_s
        turned = [
            e for e in self.scenario.events if before_s < e.at_s <= now_s or before_s < e.end_s <= now_s
        ]
        active = [e for e in self.scenario.events if e.at_s <= now_s < e.end_s]
        is_hour = not now_s % 3600
        if not (is_hour or turned or self._has_limited_links):
            return []
        links = links_at(self.scenario, now_s, active, self.account.mbps)
        changed = {pair: state for pair, state in links.items() if self._links.get(pair) != state}
        if not (is_hour or turned or changed):
            return []
        if self._links:
            self.account.count_promises(now_s, self._links)
        self._links = links
        lost_sites = {e.site for e in active if e.kind == "site_loss"}
        hours = -(-self.scenario.duration_s // 3600) + 1
        sites = []
        for site in self.scenario.sites:
            account = self.account.sites[site.id]
            account.advance(now_s)
            account.pue_permille = site.pue_at(now_s // 3600, _extra_c(active, site.id))
            is_lost = site.id in lost_sites
            if is_lost and not account.is_lost:
                account.turn_off()
            elif account.is_lost and not is_lost:
                account.turn_on()
            health = _health(active, site.id)
            message = world.site_message(site, hours, account.pue_permille, now_s // 3600, health)
            sites.append(message)
        self._sites = sites
        await self.backend.change(now_s, sites, changed)
        return self._lose_tasks(lost_sites, now_s)

    @property
    def _has_limited_links(self) -> bool:
        return bool(self.scenario.rtt_queue_us) and any(site.link_mbps for site in self.scenario.sites)

    def _lose_tasks(self, site_ids: set[str], now_s: int) -> list[str]:
        for task_id in [i for i, moving in self._moving.items() if moving.site_id in site_ids]:
            del self._moving[task_id]
        gone = [r for r in self._running.values() if r.site_id in site_ids] if site_ids else []
        for running in gone:
            task = running.task
            if running.is_up:
                self.account.end(running, now_s, self._links)
                task = task._replace(at_s=now_s)
            self.account.lost += 1
            copy = self._moving.pop(task.id, None)
            if copy is None:
                del self._running[task.id]
                self._lost.append((now_s + LOST_AFTER_S, task))
            else:  # it is starting elsewhere already
                again = replace(copy, task=task, end_s=copy.up_s + task.run_time_s, is_up=False)
                self._running[task.id] = again
                heapq.heappush(self._turns, (again.end_s, task.id))
        return [running.task.id for running in gone]

    def _give_up_lost(self, now_s: int) -> None:
        """Tasks of a lost site wait again once they count as lost."""
        for due_s, task in self._lost:
            if due_s <= now_s:
                self._waiting[task.id] = task
        self._lost = [(due_s, task) for due_s, task in self._lost if due_s > now_s]

    def _finish(self, now_s: int) -> None:
        self.account.count_promises(now_s, self._links)
        for site in self.account.sites.values():
            site.advance(now_s)
        starting = [running.task for running in self._running.values() if not running.is_up]
        for task in [*self._waiting.values(), *(task for _, task in self._lost), *starting]:
            self.account.still_waits(task, now_s)


def _health(active: list[Event], site_id: str) -> Health.ValueType:
    kinds = {event.kind for event in active if event.site == site_id}
    if "site_loss" in kinds:
        return HEALTH_UNREACHABLE
    return HEALTH_DRAINING if "drain" in kinds else HEALTH_READY


def _extra_c(active: list[Event], site_id: str) -> float:
    return sum(e.extra_c for e in active if e.kind == "heat" and e.site == site_id)
