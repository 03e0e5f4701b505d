"""Counts what a run did: waiting, promises, energy, money. In a fixed order, so a seed gives one result."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from mumian_orchestrator.bench.sim.arrivals import Arrival
from mumian_orchestrator.bench.sim.links import Links, Pair
from mumian_orchestrator.bench.sim.scenario import NodeClass, Scenario, Site
from mumian_orchestrator.bench.sim.task_groups import TaskGroup

MWS_PER_KWH = 3_600_000_000  # milliwatt-seconds
Group = tuple[int, int, str, str, int]  # class, task group, zone, site, node class


@dataclass(slots=True)
class Running:
    """One task at its place, and how much of which devices it holds. It is up from `up_s` to `end_s`."""

    task: Arrival
    site_id: str
    node_id: str
    up_s: float
    end_s: float
    devices_milli: tuple[tuple[int, int], ...] = ()
    is_up: bool = False


@dataclass(slots=True)
class SiteAccount:
    """Power and rent of what runs now, and what they have come to.

    Energy, carbon and money are those of the tasks, as on their receipts; what machines take by being on is
    counted beside.
    """

    site: Site
    pue_permille: int
    since_ms: int = 0
    it_power_mw: int = 0
    idle_power_mw: int = 0
    rent_microcny_per_hour: int = 0
    cpu_milli: int = 0
    accelerator_milli: int = 0
    it_mws: float = 0.0
    facility_mws: float = 0.0
    carbon_g: float = 0.0
    energy_cny: float = 0.0
    idle_facility_mws: float = 0.0
    idle_carbon_g: float = 0.0
    idle_cny: float = 0.0
    rent_cny: float = 0.0
    cpu_milli_s: float = 0.0
    accelerator_milli_s: float = 0.0
    is_lost: bool = False
    tasks_of_node: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.turn_on()

    def turn_on(self) -> None:
        """With nothing on it: the machines that do not sleep are on."""
        self.is_lost = False
        self.idle_power_mw = sum(g.count * g.idle_power_mw for g in self.site.nodes if not g.sleeps)

    def turn_off(self) -> None:
        """It is lost."""
        self.is_lost, self.idle_power_mw = True, 0

    def advance(self, now_s: float) -> None:
        """Count up to now, at the figures of the hour in which it began; called at least once an hour."""
        now_ms = round(now_s * 1000)
        span_s = (now_ms - self.since_ms) / 1000
        hour = self.since_ms // 3_600_000 % 24
        it_mws = self.it_power_mw * span_s
        facility_mws = it_mws * self.pue_permille / 1000
        self.it_mws += it_mws
        self.facility_mws += facility_mws
        self.carbon_g += facility_mws / MWS_PER_KWH * self.site.carbon_g_per_kwh[hour]
        self.energy_cny += facility_mws / MWS_PER_KWH * self.site.energy_kwh_cny[hour]
        idle_mws = self.idle_power_mw * span_s * self.pue_permille / 1000
        self.idle_facility_mws += idle_mws
        self.idle_carbon_g += idle_mws / MWS_PER_KWH * self.site.carbon_g_per_kwh[hour]
        self.idle_cny += idle_mws / MWS_PER_KWH * self.site.energy_kwh_cny[hour]
        self.rent_cny += self.rent_microcny_per_hour * span_s / 3600 / 1_000_000
        self.cpu_milli_s += self.cpu_milli * span_s
        self.accelerator_milli_s += self.accelerator_milli * span_s
        self.since_ms = now_ms


@dataclass(slots=True)
class Promises:
    """Task-seconds under a latency promise, and those of them at a place that keeps it."""

    task_s: float = 0.0
    kept_task_s: float = 0.0

    @property
    def share(self) -> float | None:
        """What is kept; None: nothing was promised."""
        return self.kept_task_s / self.task_s if self.task_s else None


@dataclass(slots=True)
class TenantAccount:
    """What one tenant asked for and got."""

    arrived: int = 0
    starts: int = 0
    wait_sum_s: float = 0.0
    hard: Promises = field(default_factory=Promises)
    soft: Promises = field(default_factory=Promises)

    def promises(self, group: TaskGroup) -> Promises:
        """Those that a group's are counted with."""
        return self.hard if group.is_hard else self.soft


@dataclass(slots=True)
class Account:
    """Everything that the report is made of."""

    scenario: Scenario
    sites: dict[str, SiteAccount]
    tenants: defaultdict[str, TenantAccount] = field(default_factory=lambda: defaultdict(TenantAccount))
    lost: int = 0
    moves: int = 0
    mbps: defaultdict[Pair, float] = field(default_factory=lambda: defaultdict(float))  # of what runs
    waits_s: list[float] = field(default_factory=list)
    # Running tasks with a promise, by class, zone and site, and when they were counted last.
    promised: dict[Group, tuple[int, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, scenario: Scenario) -> Account:
        """Nothing has happened yet."""
        return cls(scenario, {site.id: SiteAccount(site, site.pue_at(0)) for site in scenario.sites})

    @property
    def arrived(self) -> int:
        """Tasks of all tenants."""
        return sum(tenant.arrived for tenant in self.tenants.values())

    def promises(self, *, hard: bool) -> Promises:
        """Of all tenants."""
        kinds = [tenant.hard if hard else tenant.soft for tenant in self.tenants.values()]
        return Promises(sum(kind.task_s for kind in kinds), sum(kind.kept_task_s for kind in kinds))

    def tenant_of(self, task: Arrival) -> TenantAccount:
        """Whose task it is."""
        return self.tenants[self.scenario.jobs[task.job_class].tenant]

    def group_of(self, task: Arrival) -> TaskGroup:
        """What it asks for."""
        return self.scenario.jobs[task.job_class].groups[task.group]

    def begin(self, running: Running, now_s: float, links: Links) -> None:
        """A task is up."""
        self._change(running, now_s, 1, links)
        tenant = self.tenant_of(running.task)
        wait_s = now_s - running.task.at_s
        tenant.starts += 1
        tenant.wait_sum_s += wait_s
        self.waits_s.append(wait_s)
        group = self.group_of(running.task)
        if group.slo_budget_us:
            tenant.promises(group).task_s += wait_s

    def end(self, running: Running, now_s: float, links: Links) -> None:
        """It ends, or is lost."""
        self._change(running, now_s, -1, links)

    def move(self, old: Running, new: Running, now_s: float, links: Links) -> None:
        """It goes on at another place."""
        self._change(old, now_s, -1, links)
        self._change(new, now_s, 1, links)
        self.moves += 1

    def still_waits(self, task: Arrival, now_s: float) -> None:
        """It never got a place."""
        group = self.group_of(task)
        if group.slo_budget_us:
            self.tenant_of(task).promises(group).task_s += now_s - task.at_s

    def count_promises(self, now_s: float, links: Links) -> None:
        """Count all running tasks up to now by the round trips that held until now."""
        for group in self.promised:
            self._count(group, now_s, links)

    def _change(self, running: Running, now_s: float, by: int, links: Links) -> None:
        task, want = running.task, self.group_of(running.task)
        site = self.sites[running.site_id]
        site.advance(now_s)
        machine_class = node_class_index(running.node_id)
        machine = site.site.nodes[machine_class]
        site.it_power_mw += by * power_mw(want, machine)
        site.rent_microcny_per_hour += by * rent_microcny_per_hour(want, machine, site.site)
        site.cpu_milli += by * want.cpu_milli
        site.accelerator_milli += by * want.accelerator_milli
        if want.mbps:
            self.mbps[task.zone, running.site_id] += by * want.mbps
        if machine.sleeps:
            self._wake_or_sleep(site, running.node_id, machine, by)
        if want.slo_budget_us:
            group = (task.job_class, task.group, task.zone, running.site_id, machine_class)
            self.promised.setdefault(group, (0, now_s))
            self._count(group, now_s, links)
            self.promised[group] = (self.promised[group][0] + by, now_s)

    def _wake_or_sleep(self, site: SiteAccount, node_id: str, machine: NodeClass, by: int) -> None:
        before = site.tasks_of_node[node_id]
        site.tasks_of_node[node_id] = after = before + by
        if not site.is_lost and (before == 0) != (after == 0):
            site.idle_power_mw += machine.idle_power_mw if after else -machine.idle_power_mw

    def _count(self, key: Group, now_s: float, links: Links) -> None:
        running, since_s = self.promised[key]
        job_class, number, zone, site_id, machine_class = key
        job = self.scenario.jobs[job_class]
        group = job.groups[number]
        spent = running * (now_s - since_s)
        promises = self.tenants[job.tenant].promises(group)
        promises.task_s += spent
        machine = self.sites[site_id].site.nodes[machine_class]
        if group.keeps_promise(links[zone, site_id].rtt_p99_us, machine):
            promises.kept_task_s += spent
        self.promised[key] = (running, now_s)


def node_class_index(node_id: str) -> int:
    """Which of its site's classes a node is of: SITE/nCLASS-NUMBER."""
    return int(node_id.rpartition("/n")[2].partition("-")[0])


def power_mw(want: TaskGroup, machine: NodeClass) -> int:
    """IT power of one task under full load."""
    cpu = want.cpu_milli * machine.core_active_power_mw // 1000
    return cpu + want.accelerator_milli * machine.accelerator_active_power_mw // 1000


def rent_microcny_per_hour(want: TaskGroup, machine: NodeClass, site: Site) -> int:
    """What the operator asks for one task."""
    return (
        want.cpu_milli * site.cpu_core_hour_microcny // 1000
        + want.memory_mib * site.memory_gib_hour_microcny // 1024
        + want.accelerator_milli * machine.accelerator_hour_microcny // 1000
    )
