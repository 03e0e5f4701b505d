"""What the site says of itself: who it is, what it has, uses and takes, and how far away it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version

from mumian.agent.v1.agent_pb2 import AgentReport, Heartbeat, Hello, LinksReport, NodesChange, PowerReport
from mumian.api.v1.fleet_pb2 import (
    FIGURE_SOURCE_MEASURED,
    FIGURE_SOURCE_MODELLED,
    METER_SIDE_FACILITY,
    METER_SIDE_IT,
    Node,
    Site,
)

from mumian_agent.agent.allocations import Allocations, now
from mumian_agent.agent.energy_accounts import EnergyAccounts
from mumian_agent.agent.ports import ReportSink
from mumian_agent.agent.site_nodes import SiteNode, SiteNodes
from mumian_agent.domain.config import AgentConfig
from mumian_agent.domain.hours import forecast_from
from mumian_agent.runtime import contact
from mumian_agent.runtime.contact import Contact
from mumian_agent.runtime.environment import devices_active_power_mw
from mumian_agent.runtime.journal import Entry
from mumian_agent.runtime.power.site_power import SitePower, in_use
from mumian_agent.runtime.probing.prober import Prober

_LINKS_EVERY_S = 1.0
_USAGE_EVERY_S = 2.0
# Below these, a change of use is noise and not worth a report.
_CPU_CHANGE_PERMILLE, _MEMORY_CHANGE_MIB, _DISK_CHANGE_MIB = 20, 64, 1024


class SiteReports:
    """The periodic reports of a site. The first of its nodes is the agent's own, with the site's meters."""

    def __init__(
        self,
        config: AgentConfig,
        agent_epoch: int,
        nodes: SiteNodes,
        allocations: Allocations,
        accounts: EnergyAccounts,
        prober: Prober,
        reports: ReportSink,
        power: SitePower,
        contact: Contact,
        on_nodes: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        """`on_nodes` is told which nodes there are, by id, when some have come or gone."""
        self._config, self._allocations, self._prober, self._reports = config, allocations, prober, reports
        self._nodes, self._accounts, self._power = nodes, accounts, power
        self._contact, self._on_nodes = contact, on_nodes
        self._heartbeat_interval_s = 1.0
        self._site = Site(agent_epoch=agent_epoch, agent_version=version("mumian-agent"))
        self._site.MergeFrom(config.site)
        self._told: dict[str, Node] = {}  # as last reported

    def hello(self) -> AgentReport:
        """The first report of a stream."""
        time = now()
        config = self._config
        self._prober.tell_all()
        if config.hours_of_day:
            forecast = forecast_from(time.seconds, config.hours_of_day, config.utc_offset_h)
            self._site.forecast.CopyFrom(forecast)
        return AgentReport(
            hello=Hello(
                site=self._site,
                agent_time=time,
                reflector=self._config.reflector_advertised,
                allocations=self._allocations.statuses(),
                nodes=self._current(),
            )
        )

    def set_heartbeat_interval(self, interval_ms: int) -> None:
        """As the coordinator wishes; 0 leaves it as it is."""
        if interval_ms:
            self._heartbeat_interval_s = interval_ms / 1000

    async def run(self) -> None:
        """Report for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            group.create_task(self._report_links())
            group.create_task(self._report_usage())

    async def _beat(self) -> None:
        while True:
            beat = Heartbeat(agent_time=now(), sent_ns=contact.now_ns())
            self._reports.put("heartbeat", AgentReport(heartbeat=beat))
            await asyncio.sleep(self._heartbeat_interval_s)

    async def _report_links(self) -> None:
        while True:
            links = self._prober.news()
            if links:
                self._reports.put("links", AgentReport(links=LinksReport(links=links)))
            # Soon at first: a job with a latency promise waits for these.
            await asyncio.sleep(_LINKS_EVERY_S if links else _LINKS_EVERY_S / 10)

    async def _report_usage(self) -> None:
        while True:
            if await self._nodes.refresh(self._contact.newest_ns):
                await self._on_nodes([node.id for node in self._nodes.all()])
            if self._has_changed():
                self._reports.put("nodes", self._change)
            self._reports.put("power", AgentReport(power=await self._power_report()))
            await asyncio.sleep(_USAGE_EVERY_S)

    def _current(self) -> list[Node]:
        nodes = [node.node for node in self._nodes.all()]
        self._told = {node.id: node for node in nodes}
        return nodes

    def _change(self) -> AgentReport:
        """What is new of the nodes since they were told last."""
        current = {node.id: node.node for node in self._nodes.all()}
        new = {id_: node for id_, node in current.items() if _is_news(node, self._told.get(id_))}
        gone = self._told.keys() - current.keys()
        self._told = {id_: node for id_, node in (self._told | new).items() if id_ in current}
        change = NodesChange(nodes=new.values(), removed_node_ids=sorted(gone))
        return AgentReport(nodes_change=change)

    def _has_changed(self) -> bool:
        """Whether the nodes are worth a report: they came, went, offer something else, or are used more."""
        current = {node.id: node.node for node in self._nodes.all()}
        if current.keys() != self._told.keys():
            return True
        return any(_is_news(node, self._told[node_id]) for node_id, node in current.items())

    async def _power_report(self) -> PowerReport:
        own, *others = self._nodes.all()
        powers_mw = [node.reading.power_mw for node in others]
        known_mw = [power_mw for power_mw in powers_mw if power_mw is not None]
        meters = await asyncio.to_thread(
            self._power.read,
            own.reading.node.cpu_used_permille,
            sum(known_mw) if len(known_mw) == len(others) else None,
        )
        it = in_use([each for each in meters if each.side == METER_SIDE_IT])
        facility = in_use([each for each in meters if each.side == METER_SIDE_FACILITY])
        metered_mw = [it.power_mw if it else None, *powers_mw]
        it_power_mw, live = 0, self._allocations.live()
        for node, power_mw in zip((own, *others), metered_mw, strict=True):
            of_node = [entry for entry in live if _is_on(entry, node)]
            modelled_mw = _modelled_mw(node, of_node)
            it_power_mw += modelled_mw if power_mw is None else power_mw
            self._accounts.read(node.id, power_mw, modelled_mw, of_node)
        self._site.pue.CopyFrom(self._power.pue())
        by_pue_mw = it_power_mw * self._site.pue.average_permille // 1000
        return PowerReport(
            pue=self._site.pue,
            it_power_mw=it_power_mw,
            facility_power_mw=facility.power_mw if facility else by_pue_mw,
            source=FIGURE_SOURCE_MODELLED if None in metered_mw else FIGURE_SOURCE_MEASURED,
            meters=meters,
            nodes=self._accounts.energies(),
        )


def _is_news(node: Node, told: Node | None) -> bool:
    if told is None:
        return True
    if (
        abs(node.cpu_used_permille - told.cpu_used_permille) >= _CPU_CHANGE_PERMILLE
        or abs(node.memory_mib_used - told.memory_mib_used) >= _MEMORY_CHANGE_MIB
        or abs(node.disk_mib_used - told.disk_mib_used) >= _DISK_CHANGE_MIB
    ):
        return True
    # Use changes all the time, and matters to people only.
    offered, told_offered = Node(), Node()
    offered.CopyFrom(node)
    told_offered.CopyFrom(told)
    for each in (offered, told_offered):
        each.ClearField("cpu_used_permille")
        each.ClearField("memory_mib_used")
        each.ClearField("disk_mib_used")
        each.ClearField("network_kbps_used")
    return offered != told_offered


def _is_on(entry: Entry, node: SiteNode) -> bool:
    return entry.run is not None and entry.run.allocation.node_id == node.id


def _modelled_mw(node: SiteNode, on_it: Sequence[Entry]) -> int:
    """What the used cores and the granted devices add to the idle node."""
    facts = node.facts
    cores_mw = node.reading.cpu_used_milli * facts.core_active_power_mw // 1000
    runs = [entry.run for entry in on_it if entry.run is not None]
    return cores_mw + sum(devices_active_power_mw(run, facts.accelerators) for run in runs)
