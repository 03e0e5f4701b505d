"""Where the next node, rack or link pays most, and what it takes to serve more demand.

The optimiser's shadow prices say what one more core, GiB or device of a site would save; each proposal is
then checked by arranging everything anew with it, and by running the whole scenario with it. Money and places
are kept apart: savings are of the tasks that have a place without the addition, and the tasks that get one
with it are counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mumian.api.v1.fleet_pb2 import Node
from mumian_core.v1 import optimize_pb2

from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.account import Running
from mumian_orchestrator.bench.sim.arrivals import Arrival, tasks_of
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.gauge import Gauge
from mumian_orchestrator.bench.sim.jobs import JobClass
from mumian_orchestrator.bench.sim.links import Links
from mumian_orchestrator.bench.sim.record import Record, record
from mumian_orchestrator.bench.sim.runner import Run
from mumian_orchestrator.bench.sim.scenario import NodeClass, Scenario

NODES_MOST = 4096
_ROUNDS = 20
_MICROCNY = 1_000_000


@dataclass(frozen=True, slots=True)
class Nodes:
    """More machines like those that a site has."""

    site_id: str
    node_class: int
    count: int

    def __str__(self) -> str:
        plural = "s" if self.count > 1 else ""
        return f"{self.count} node{plural} of class {self.node_class} at {self.site_id}"

    def added(self, scenario: Scenario) -> Scenario:
        """The scenario with it."""
        sites = []
        for site in scenario.sites:
            groups = list(site.nodes)
            if site.id == self.site_id:
                group = groups[self.node_class]
                groups[self.node_class] = dataclasses.replace(group, count=group.count + self.count)
            sites.append(dataclasses.replace(site, nodes=tuple(groups)))
        return dataclasses.replace(scenario, sites=tuple(sites))


@dataclass(frozen=True, slots=True)
class Link:
    """A link of half the round trip."""

    zone: str
    site_id: str
    rtt_p99_us: int

    def __str__(self) -> str:
        return f"{self.zone} to {self.site_id} in {self.rtt_p99_us / 1000:.1f} ms"

    def added(self, scenario: Scenario) -> Scenario:
        """The scenario with it."""
        links = {**scenario.links_rtt_p99_us, (self.zone, self.site_id): self.rtt_p99_us}
        return dataclasses.replace(scenario, links_rtt_p99_us=links)


@dataclass(frozen=True, slots=True)
class Worth:
    """What an addition is worth at the moment looked at.

    Args:
        rank: only for the order. Nodes: the shadow prices, tasks without a place among what is short; links:
            by how much the bound falls.
        predicted_cny_per_hour: saved on the tasks that have a place anyway. Nodes: their shadow prices x what
            the nodes have; links: by how much their bound falls.
        realised_cny_per_hour: by how much their best arrangement found costs less with it.
        placed_more: tasks that find a place with it.
    """

    addition: Nodes | Link
    rank: int
    predicted_cny_per_hour: float
    realised_cny_per_hour: float = 0.0
    placed_more: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """The busiest moment of a run: what is wanted, its best arrangement, and that of what has a place."""

    at_s: int
    running: Sequence[Running]
    waiting: Sequence[Arrival]
    best: optimize_pb2.OptimizeResponse
    housed: Sequence[Arrival]  # those of `waiting` that have a place in `best`
    best_of_housed: optimize_pb2.OptimizeResponse


class Planner:
    """Looks at one scenario under our own policy.

    Args:
        demand: tasks that come on top at the moment looked at.
    """

    def __init__(self, scenario: Scenario, seed: int, demand: Sequence[Arrival] = ()) -> None:
        self._scenario, self._seed, self._gauge = scenario, seed, Gauge(scenario)
        self.before = record(Run(scenario, readings=0), seed)
        busiest = max(self.before.samples[1:], key=lambda s: (s.waiting, s.core_share, -s.at_s))
        until = dataclasses.replace(scenario, duration_s=busiest.at_s)
        made = Run(until, readings=0).simulate(seed)
        self._sites, self._links = made.world()
        self._running, waiting = made.running_tasks(), [*made.waiting_tasks(), *demand]
        best = self._best(waiting)
        with_place = {(p.job_id, p.task_group, p.task_index) for p in best.plan.placements}
        housed = [task for task in waiting if self._named(task) in with_place]
        best_of_housed = self._best(housed) if len(housed) < len(waiting) else best
        self.moment = Moment(busiest.at_s, self._running, waiting, best, housed, best_of_housed)

    def nodes(self, count: int) -> list[Worth]:
        """So many nodes of each class whose resources have a price, the most worth first; see `check`.

        Where a site has no room for so many: as many as it has room for.
        """
        rank, money = _prices(self.moment.best), _prices(self.moment.best_of_housed)
        found = []
        for site in self._scenario.sites:
            fits = count if site.more_nodes_max is None else min(count, site.more_nodes_max)
            for number, group in enumerate(site.nodes):
                worth = Worth(
                    Nodes(site.id, number, fits),
                    fits * _worth_microcny(group, site.id, rank),
                    fits * _worth_microcny(group, site.id, money) / _MICROCNY,
                )
                if worth.rank or worth.predicted_cny_per_hour:
                    found.append(worth)
        return _ordered(found)

    def full_sites(self) -> list[str]:
        """Where one more node would pay, and there is no room for any."""
        prices = _prices(self.moment.best)
        return [
            site.id
            for site in self._scenario.sites
            if site.more_nodes_max == 0
            and any(_worth_microcny(group, site.id, prices) for group in site.nodes)
        ]

    def links(self) -> list[Worth]:
        """Every link that keeps some promise once it takes half the time, and does not now; see `check`."""
        found = []
        for link in self._links_that_matter():
            links = self._with(link)
            rank = _bound_fall(self.moment.best, self._best(self.moment.waiting, links=links))
            money = rank
            if self.moment.best_of_housed is not self.moment.best:
                money = _bound_fall(self.moment.best_of_housed, self._best(self.moment.housed, links=links))
            found.append(Worth(link, rank, money / _MICROCNY))
        return _ordered(worth for worth in found if worth.rank > 0)

    def check(self, worth: Worth) -> Worth:
        """The same with what it really brings at the moment looked at."""
        more: list[Node] = []
        links = None
        if isinstance(worth.addition, Nodes):
            more = self._messages(worth.addition)
        else:
            links = self._with(worth.addition)
        best = self._best(self.moment.waiting, more, links)
        housed = best
        if self.moment.best_of_housed is not self.moment.best:
            housed = self._best(self.moment.housed, more, links)
        saved = _cost_microcny(self.moment.best_of_housed) - _cost_microcny(housed)
        return dataclasses.replace(
            worth,
            realised_cny_per_hour=saved / _MICROCNY,
            placed_more=self.moment.best.found.unplaced_task_count - best.found.unplaced_task_count,
        )

    def rerun(self, addition: Nodes | Link) -> Record:
        """The whole scenario with the addition, under our policy."""
        return record(Run(addition.added(self._scenario), readings=0), self._seed)

    def least_nodes(
        self, site_id: str, node_class: int, beside: Sequence[Nodes] = ()
    ) -> tuple[int, float] | None:
        """How many more nodes of a class it takes that every task has a place, and what all then costs in CNY
        an hour; None: no number of them helps, or there is no room for so many.

        Args:
            beside: nodes that are added too.
        """
        most = self._room(site_id) - sum(nodes.count for nodes in beside if nodes.site_id == site_id)
        low, high = 0, min(1, most)
        while (cost := self._cost_of_all(site_id, node_class, high, beside)) is None:
            if high >= most:
                return None
            low, high = high, min(2 * high, most)
        while high - low > 1:
            middle = (low + high) // 2
            found = self._cost_of_all(site_id, node_class, middle, beside)
            if found is None:
                low = middle
            else:
                high, cost = middle, found
        return high, cost

    def mix(self, worths: Sequence[Worth]) -> tuple[list[Nodes], float] | None:
        """Nodes at several sites, each filled as far as it has room, in the order given, and what all then
        costs in CNY an hour; None: even all of them together leave a task without a place.
        """
        chosen: list[Nodes] = []
        left = self.moment.best.found.unplaced_task_count
        for worth in worths:
            assert isinstance(worth.addition, Nodes)
            site_id, node_class = worth.addition.site_id, worth.addition.node_class
            free = self._room(site_id) - sum(n.count for n in chosen if n.site_id == site_id)
            if free <= 0:
                continue
            found = self.least_nodes(site_id, node_class, chosen)
            if found is not None:
                return [*chosen, Nodes(site_id, node_class, found[0])], found[1]
            all_of_them = Nodes(site_id, node_class, min(free, NODES_MOST))
            still = self._unplaced([*chosen, all_of_them])
            if still < left:
                chosen, left = [*chosen, all_of_them], still
        return None

    def _room(self, site_id: str) -> int:
        most = next(site.more_nodes_max for site in self._scenario.sites if site.id == site_id)
        return NODES_MOST if most is None else most

    def _cost_of_all(
        self, site_id: str, node_class: int, count: int, beside: Sequence[Nodes]
    ) -> float | None:
        answer = self.best_with([*beside, Nodes(site_id, node_class, count)])
        return None if answer.found.unplaced_task_count else _cost_microcny(answer) / _MICROCNY

    def _unplaced(self, nodes: Sequence[Nodes]) -> int:
        return self.best_with(nodes).found.unplaced_task_count

    def best_with(self, nodes: Sequence[Nodes]) -> optimize_pb2.OptimizeResponse:
        """The moment, arranged anew with these too."""
        return self._best(self.moment.waiting, [m for entry in nodes for m in self._messages(entry)])

    def _named(self, task: Arrival) -> tuple[str, str, int]:
        job = self._scenario.jobs[task.job_class]
        return task.job_id, job.groups[task.group].name, task.task_index

    def _best(
        self,
        waiting: Sequence[Arrival],
        more: Sequence[Node] = (),
        links: Links | None = None,
    ) -> optimize_pb2.OptimizeResponse:
        return self._gauge.optimise(
            self._sites,
            self._links if links is None else links,
            self._running,
            self._running,
            waiting,
            more,
            rounds=_ROUNDS,
        )

    def _with(self, link: Link) -> Links:
        pair = (link.zone, link.site_id)
        return {**self._links, pair: self._links[pair]._replace(rtt_p99_us=link.rtt_p99_us)}

    def _messages(self, nodes: Nodes) -> list[Node]:
        return world.more_node_messages(self._scenario, nodes.site_id, nodes.node_class, nodes.count)

    def _links_that_matter(self) -> Iterator[Link]:
        promises = {
            (zone, group.slo_budget_us - group.compute_us - group.client_us)
            for job in self._scenario.jobs
            for group in job.groups
            if group.slo_budget_us
            for zone in job.zones
        }
        for (zone, site_id), state in self._links.items():
            rtt_us = state.rtt_p99_us
            if any(name == zone and rtt_us / 2 <= left_us < rtt_us for name, left_us in promises):
                yield Link(zone, site_id, round(rtt_us / 2))


def _prices(answer: optimize_pb2.OptimizeResponse) -> dict[tuple[str, str], int]:
    return {(price.site_id, price.resource): price.microcny_per_hour for price in answer.prices}


def _cost_microcny(answer: optimize_pb2.OptimizeResponse) -> int:
    return answer.found.cost_microcny_per_hour


def _bound_fall(before: optimize_pb2.OptimizeResponse, after: optimize_pb2.OptimizeResponse) -> int:
    return before.bound_microcny_per_hour - after.bound_microcny_per_hour


def _ordered(worths: Iterable[Worth]) -> list[Worth]:
    return sorted(worths, key=lambda w: (-w.rank, -w.predicted_cny_per_hour, str(w.addition)))


def demand(scenario: Scenario, text: str) -> list[Arrival]:
    """The tasks of so many jobs that come on top: CLASS=COUNT, or CLASS=COUNT@ZONE.

    Raises:
        ScenarioError: it is not so written, or names what the scenario does not have.
    """
    name, _, rest = text.partition("=")
    count, _, zone = rest.partition("@")
    numbers = {job.name: number for number, job in enumerate(scenario.jobs)}
    if not count.isdecimal() or not int(count):
        raise ScenarioError(
            f"--demand ({text}) must be CLASS=COUNT or CLASS=COUNT@ZONE, such as cloud-vr=100"
        )
    if name not in numbers:
        raise ScenarioError(f"--demand ({text}): no class {name}; known: {', '.join(numbers)}")
    zones = [place.id for place in scenario.zones]
    if zone and zone not in zones:
        raise ScenarioError(f"--demand ({text}): no zone {zone}; known: {', '.join(zones)}")
    job = scenario.jobs[numbers[name]]
    places = [zone] if zone else _in_turn(job, int(count))
    return [
        task
        for number in range(int(count))
        for task in tasks_of(
            job, Arrival(0.0, numbers[name], -1 - number, places[number % len(places)], job.run_time_s)
        )
    ]


def _in_turn(job: JobClass, count: int) -> list[str]:
    """The zones of the class's users, evenly over all of them."""
    return [job.zones[number * len(job.zones) // count] for number in range(count)]


def _worth_microcny(group: NodeClass, site_id: str, prices: Mapping[tuple[str, str], int]) -> int:
    return (
        prices.get((site_id, "cpu"), 0) * group.cores
        + prices.get((site_id, "memory"), 0) * group.memory_gib
        + prices.get((site_id, group.accelerator_model), 0) * group.accelerator_count
    )
