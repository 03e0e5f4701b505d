"""The fleet: sites, nodes and links as the agents report them. Only the sites themselves are stored."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

from google.protobuf.timestamp_pb2 import Timestamp
from mumian.agent.v1.agent_pb2 import Hello, PowerReport
from mumian.api.v1 import fleet_pb2
from mumian.api.v1.fleet_pb2 import Link, Node, Site, Zone
from mumian.api.v1.job_pb2 import Allocation, Job

from mumian_orchestrator.domain.job_state import holds_room
from mumian_orchestrator.domain.rollout import group_of
from mumian_orchestrator.domain.shares import NOTHING, Amount
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.engine import Engine
from mumian_orchestrator.ports.store import Write
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.money.documents import MoneyDocuments
from mumian_orchestrator.services.probe_plan import ProbePlan

log = logging.getLogger(__name__)

_SITES = "sites/"
# A site whose PUE is unknown counts as 1, as in the core.
_PUE_LEAST_PERMILLE = 1000
# What rises and falls with everybody's load.
_METERS: Final[tuple[Literal["facility_power_mw", "it_power_mw", "meters"], ...]] = (
    "facility_power_mw",
    "it_power_mw",
    "meters",
)


class Fleet:
    """What is known of the sites. Every change goes to the engine in the same step."""

    def __init__(
        self,
        zones: Iterable[Zone],
        table: JobTable,
        engine: Engine,
        commit_log: CommitLog,
        clock: Clock,
        unreachable_after_ms: int,
        documents: MoneyDocuments,
    ) -> None:
        self._documents = documents
        self.zones: Mapping[str, Zone] = {zone.id: zone for zone in zones}
        self.probes = ProbePlan({zone.id: zone.reflector for zone in zones})
        self._table, self._engine, self._log, self._clock = table, engine, commit_log, clock
        self._unreachable_after_s = unreachable_after_ms / 1000
        self._sites: dict[str, Site] = {}
        self._nodes: dict[str, dict[str, Node]] = {}
        # Nodes that something runs on, of sites that have not said hello to this leader, by site.
        self._expected: dict[str, set[str]] = {}
        self._capacity_of: dict[str, Amount] = {}  # by site
        self._links: dict[str, dict[str, Link]] = {}  # by their ends
        # When each site was last heard, by both clocks; and the sites that have been silent for too long.
        self._heard: dict[str, tuple[float, Timestamp]] = {}
        self._given_up: set[str] = set()

    def load(self, stored: Mapping[str, bytes], reserved: Sequence[tuple[Job, Allocation]] = ()) -> None:
        """Take the stored sites; each is unreachable until its agent says hello.

        What runs there counts at once for constraints that couple tasks, and so does what is reserved: on
        nodes of which nothing is known yet but their names.
        """
        for key, value in stored.items():
            if key.startswith(_SITES):
                site = Site.FromString(value)
                site.health = fleet_pb2.HEALTH_UNREACHABLE
                self._sites[site.id] = site
                self._heard[site.id] = self._clock.monotonic_s(), self._clock.now()
        running = [(job, a) for job, a in self._table.live_allocations() if holds_room(a)]
        booked = [(job, a) for job, a in [*running, *reserved] if a.site_id in self._sites]
        for _, allocation in booked:
            self._expected.setdefault(allocation.site_id, set()).add(allocation.node_id)
        unknown = [
            Node(id=node_id, site_id=site_id, health=fleet_pb2.HEALTH_UNREACHABLE)
            for site_id, node_ids in self._expected.items()
            for node_id in sorted(node_ids)
        ]
        self._engine.update(sites=self._priced(self._sites.values()), nodes=unknown, booked=booked)

    def join(self, hello: Hello) -> None:
        """A site's agent has connected: its facts are stored, its nodes are what it says."""
        site = Site()
        site.CopyFrom(hello.site)
        site.health = fleet_pb2.HEALTH_READY
        self._sites[site.id] = site
        self.probes.join(site.id, hello.reflector)
        self._engine.update(sites=self._priced([site]))
        self.set_nodes(site.id, hello.nodes)
        self._log.append([Write(_SITES + site.id, site.SerializeToString())])
        self._given_up.discard(site.id)
        self._hear(site)

    def set_nodes(self, site_id: str, nodes: Sequence[Node]) -> None:
        """The site has exactly these nodes; allocations on one that appears are booked on it again."""
        new = {node.id: node for node in nodes}
        old = self._nodes.get(site_id, {})
        gone = (old.keys() | self._expected.pop(site_id, set())) - new.keys()
        for node_id in old.keys() & new.keys():
            if new[node_id] is not old[node_id]:
                new[node_id].energy.CopyFrom(old[node_id].energy)
        self._nodes[site_id] = new
        self._capacity_of[site_id] = _capacity(new.values())
        appeared = new.keys() - old.keys()
        booked = [
            (job, allocation)
            for job, allocation in self._table.live_allocations(site_id)
            if allocation.node_id in appeared and holds_room(allocation)
        ]
        offered = self._documents.limited(self._sites[site_id], nodes)
        self._engine.update(nodes=offered, removed_node_ids=sorted(gone), booked=booked)

    def change_nodes(self, site_id: str, nodes: Sequence[Node], removed_node_ids: Iterable[str]) -> None:
        """These nodes of the site have come or are otherwise, and those have gone; the rest is as it was."""
        merged = dict(self._nodes.get(site_id, {})) | {node.id: node for node in nodes}
        for node_id in removed_node_ids:
            merged.pop(node_id, None)
        self.set_nodes(site_id, list(merged.values()))

    def set_offers(self) -> None:
        """What the operators ask and offer has changed, by a new price list or by the hour."""
        self._engine.update(
            sites=self._priced(self._sites.values()),
            nodes=[
                node
                for site_id, nodes in self._nodes.items()
                for node in self._documents.limited(self._sites[site_id], list(nodes.values()))
            ],
        )

    def _priced(self, sites: Iterable[Site]) -> list[Site]:
        return [self._documents.priced(site) for site in sites]

    def set_links(self, links: Sequence[Link]) -> None:
        """The newest measurements, or estimates."""
        for link in links:
            self._links.setdefault(link.from_id, {})[link.to_site_id] = link
        self._engine.update(links=links)

    def set_power(self, site_id: str, report: PowerReport) -> bool:
        """The site's meter; whether the PUE changed, and with it what a placement costs."""
        site = self._sites[site_id]
        site.it_power_mw, site.facility_power_mw = report.it_power_mw, report.facility_power_mw
        site.power_source = report.source
        del site.meters[:]
        site.meters.extend(report.meters)
        for energy in report.nodes:
            if node := self._nodes.get(site_id, {}).get(energy.node_id):
                node.energy.CopyFrom(energy)
        if not report.HasField("pue") or report.pue == site.pue:
            return False
        site.pue.CopyFrom(report.pue)
        self._engine.update(sites=self._priced([site]))
        return True

    def seen(self, site_id: str) -> bool:
        """The site's agent has reported; False: it had been given up, and has to say hello again."""
        if site_id in self._given_up:
            return False
        self._hear(self._sites[site_id])
        return True

    def all_sites(self) -> list[Site]:
        """All sites as they are, without their totals, in order of id: not to be changed."""
        return [self._sites[site_id] for site_id in sorted(self._sites)]

    def all_nodes(self, site_id: str = "") -> list[Node]:
        """All nodes as they are, or those of one site, in order of id: not to be changed."""
        chosen = [self._nodes.get(site_id, {})] if site_id else self._nodes.values()
        by_id = {node_id: node for nodes in chosen for node_id, node in nodes.items()}
        return [by_id[node_id] for node_id in sorted(by_id)]

    def all_links(self, from_id: str = "", behind: tuple[str, str] = ("", "")) -> Iterator[Link]:
        """All links as they are, or those from one zone or site, in order of their ends, behind the one with
        those ends: not to be changed, and not to be read over an await.
        """
        for start in [from_id] if from_id else sorted(self._links):
            ends = self._links.get(start, {}) if start >= behind[0] else {}
            yield from (ends[end] for end in sorted(ends) if (start, end) > behind)

    def is_reachable(self, site_id: str) -> bool:
        """Whether the site's agent reports."""
        site = self._sites.get(site_id)
        return site is not None and site.health != fleet_pb2.HEALTH_UNREACHABLE

    def last_heard(self, site_id: str) -> tuple[float, Timestamp]:
        """When the site last reported, by the monotonic clock and by the wall clock; of one that has not
        reported since this leader began: when it began.
        """
        return self._heard[site_id]

    def capacity(self) -> Amount:
        """All that the nodes have together, of whatever health."""
        return Amount(*map(sum, zip(NOTHING, *self._capacity_of.values(), strict=True)))

    def has_node(self, site_id: str, node_id: str) -> bool:
        """Whether the site has told of this node."""
        return node_id in self._nodes.get(site_id, {})

    def reachable_count(self) -> int:
        """The number of sites that are not given up."""
        return len(self._sites) - len(self._given_up)

    def mark_silent(self) -> list[str]:
        """The sites that have become unreachable since the last call."""
        deadline_s = self._clock.monotonic_s() - self._unreachable_after_s
        silent = [
            site
            for site in self._sites.values()
            if site.id not in self._given_up and self._heard[site.id][0] < deadline_s
        ]
        for site in silent:
            log.warning("site %s is unreachable: its agent has been silent too long", site.id)
            site.health = fleet_pb2.HEALTH_UNREACHABLE
            self._given_up.add(site.id)
        if silent:
            self._engine.update(sites=self._priced(silent))
        return [site.id for site in silent]

    def _hear(self, site: Site) -> None:
        now = self._clock.now()
        self._heard[site.id] = self._clock.monotonic_s(), now
        site.last_seen_time.CopyFrom(now)

    def facts(self, site_id: str) -> Site | None:
        """A site as its agent tells it, without totals: not to be changed, nor to be kept over an await."""
        return self._sites.get(site_id)

    def accelerator_model(self, allocation: Allocation) -> str:
        """Of the devices that an allocation has; empty: it has none, or its node is not known."""
        node = self._nodes.get(allocation.site_id, {}).get(allocation.node_id)
        if node is None or not allocation.devices:
            return ""
        index = allocation.devices[0].device_index
        for accelerator in node.accelerators:
            if index < accelerator.count:
                return accelerator.model
            index -= accelerator.count
        return ""

    # What callers see.

    # With a tenant_id: what that tenant uses, and nothing that tells what others use.

    def site(self, site_id: str, tenant_id: str | None = None) -> Site | None:
        """A site with its totals."""
        site = self._sites.get(site_id)
        return self._with_usage(site, tenant_id) if site else None

    def sites(self, tenant_id: str | None = None) -> list[Site]:
        """All sites with their totals, in order of id."""
        return [self._with_usage(self._sites[site_id], tenant_id) for site_id in sorted(self._sites)]

    def nodes(self, site_id: str = "", tenant_id: str | None = None) -> list[Node]:
        """All nodes, or those of one site, with what is promised on them, in order of id."""
        return self.with_promises(self.all_nodes(site_id), tenant_id)

    def with_promises(self, nodes: Sequence[Node], tenant_id: str | None = None) -> list[Node]:
        """Copies of some of `all_nodes`, with what is promised on them."""
        shown = {node.id: _fresh_node(node) for node in nodes}
        for site_id in {node.site_id for node in nodes}:
            for allocation in self._holding_room(site_id, tenant_id):
                if allocation.node_id in shown:
                    _promise(shown[allocation.node_id], allocation)
        if tenant_id is not None:
            for node in shown.values():
                node.ClearField("cpu_used_permille")
                node.ClearField("memory_mib_used")
        return list(shown.values())

    def links(self, from_id: str = "", tenant_id: str | None = None) -> list[Link]:
        """All links, or those from one zone or site, in order of their ends, with what is reserved."""
        return self.with_reserved(list(self.all_links(from_id)), tenant_id)

    def with_reserved(self, links: Sequence[Link], tenant_id: str | None = None) -> list[Link]:
        """Copies of some of `all_links`, with what is reserved on them."""
        zones_to = {link.to_site_id for link in links if link.from_id in self.zones}
        reserved_kbps = self._reserved_kbps(zones_to, tenant_id)
        shown = []
        for link in links:
            shown.append(Link())
            shown[-1].CopyFrom(link)
            shown[-1].bandwidth_kbps_allocated = reserved_kbps[link.from_id, link.to_site_id]
        return shown

    def link(self, from_id: str, to_site_id: str) -> Link | None:
        """What is known of one link."""
        return self._links.get(from_id, {}).get(to_site_id)

    def _holding_room(self, site_id: str, tenant_id: str | None) -> Iterator[Allocation]:
        for job, allocation in self._table.live_allocations(site_id):
            if (tenant_id is None or job.tenant_id == tenant_id) and holds_room(allocation):
                yield allocation

    def _reserved_kbps(self, site_ids: Iterable[str], tenant_id: str | None) -> Counter[tuple[str, str]]:
        """From each zone to each of the sites."""
        reserved_kbps: Counter[tuple[str, str]] = Counter()
        for site_id in site_ids:
            for job, allocation in self._table.live_allocations(site_id):
                if tenant_id is None or job.tenant_id == tenant_id:
                    for traffic in group_of(job, allocation).zone_traffic:
                        reserved_kbps[traffic.zone_id, site_id] += traffic.bandwidth_kbps
        return reserved_kbps

    def _with_usage(self, site: Site, tenant_id: str | None) -> Site:
        """A copy. No node is copied: there may be 100,000 of them behind a list of sites."""
        copy = Site()
        copy.CopyFrom(site)
        if tenant_id is not None:
            for field in _METERS:
                copy.ClearField(field)
        nodes = self._nodes.get(site.id, {})
        usage, it_power_uw = _total(nodes.values()), 0
        for allocation in self._holding_room(site.id, tenant_id):
            usage.allocation_count += 1
            if (node := nodes.get(allocation.node_id)) is not None:
                usage.cpu_milli_allocated += allocation.resources.cpu_milli
                usage.memory_mib_allocated += allocation.resources.memory_mib
                usage.accelerator_milli_allocated += sum(share.milli for share in allocation.devices)
                it_power_uw += _it_power_uw(node, allocation)
        facility_nw = it_power_uw * max(_PUE_LEAST_PERMILLE, site.pue.marginal_permille)
        usage.facility_power_mw_allocated = facility_nw // 10**6
        copy.usage.CopyFrom(usage)
        return copy


def _capacity(nodes: Collection[Node]) -> Amount:
    """All that some nodes have together."""
    devices = sum(accelerator.count for node in nodes for accelerator in node.accelerators)
    return Amount(
        sum(node.cpu_milli for node in nodes), sum(node.memory_mib for node in nodes), 1000 * devices
    )


def _it_power_uw(node: Node, allocation: Allocation) -> int:
    """What an allocation takes of its node under full load."""
    cores_uw = allocation.resources.cpu_milli * node.core_active_power_mw
    if not allocation.devices:
        return cores_uw
    by_device_mw = [a.active_power_mw for a in node.accelerators for _ in range(a.count)]
    shares = [share for share in allocation.devices if share.device_index < len(by_device_mw)]
    return cores_uw + sum(share.milli * by_device_mw[share.device_index] for share in shares)


def _fresh_node(node: Node) -> Node:
    copy = Node()
    copy.CopyFrom(node)
    copy.ClearField("cpu_milli_allocated")
    copy.ClearField("memory_mib_allocated")
    copy.ClearField("devices_allocated")
    return copy


def _promise(node: Node, allocation: Allocation) -> None:
    node.cpu_milli_allocated += allocation.resources.cpu_milli
    node.memory_mib_allocated += allocation.resources.memory_mib
    by_index = {share.device_index: share for share in node.devices_allocated}
    for share in allocation.devices:
        if share.device_index in by_index:
            by_index[share.device_index].milli += share.milli
        else:
            node.devices_allocated.append(share)


def _total(nodes: Collection[Node]) -> fleet_pb2.SiteUsage:
    """What a site's nodes have together."""
    withheld_milli = sum(share.milli for node in nodes for share in node.devices_withheld)
    accelerators = [accelerator for node in nodes for accelerator in node.accelerators]
    switches = [node.switch_id for node in nodes]
    return fleet_pb2.SiteUsage(
        node_count=len(nodes),
        cpu_milli_capacity=sum(node.cpu_milli for node in nodes),
        memory_mib_capacity=sum(node.memory_mib for node in nodes),
        accelerator_milli_capacity=sum(1000 * a.count for a in accelerators) - withheld_milli,
        fp16_gflops_capacity=sum(a.fp16_gflops * a.count for a in accelerators),
        switch_count=len(set(filter(None, switches))),
        rack_count=len({node.rack_id for node in nodes if node.rack_id}),
        switchless_node_count=switches.count(""),
    )
