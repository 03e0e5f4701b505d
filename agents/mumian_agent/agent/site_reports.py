"""What the site says of itself: who it is, what it has, uses and takes, and how far away it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from importlib.metadata import version

import psutil
from mumian.agent.v1.agent_pb2 import AgentReport, Heartbeat, Hello, LinksReport, NodesReport, PowerReport
from mumian.api.v1.fleet_pb2 import (
    FIGURE_SOURCE_MEASURED,
    FIGURE_SOURCE_MODELLED,
    HEALTH_READY,
    METER_SIDE_FACILITY,
    METER_SIDE_IT,
    MeterReading,
    Node,
    Site,
)

from mumian_agent.agent.allocations import Allocations, now
from mumian_agent.agent.ports import ReportSink
from mumian_agent.domain.config import AgentConfig
from mumian_agent.domain.hours import forecast_from
from mumian_agent.runtime import contact
from mumian_agent.runtime.environment import devices_active_power_mw
from mumian_agent.runtime.machine import Machine, Usage, arch
from mumian_agent.runtime.power.site_power import SitePower, in_use
from mumian_agent.runtime.prober import Prober

_LINKS_EVERY_S = 1.0
_USAGE_EVERY_S = 2.0
# Below these, a change of use is noise and not worth a report.
_CPU_CHANGE_PERMILLE, _MEMORY_CHANGE_MIB = 20, 64


class SiteReports:
    """The periodic reports of a site of one node."""

    def __init__(
        self,
        config: AgentConfig,
        agent_epoch: int,
        machine: Machine,
        allocations: Allocations,
        prober: Prober,
        reports: ReportSink,
        processes: Callable[[], Iterable[psutil.Process]],
        power: SitePower,
        container_engine: str = "",
    ) -> None:
        """`processes` gives everything that runs on the site; `container_engine` is empty for none."""
        self._config, self._allocations, self._prober, self._reports = config, allocations, prober, reports
        self._machine = machine
        self._processes, self._power = processes, power
        self._heartbeat_interval_s = 1.0
        self._site = Site(agent_epoch=agent_epoch, agent_version=version("mumian-agent"))
        self._site.MergeFrom(config.site)
        self._node = Node(
            id=f"{config.site.id}/n1",
            site_id=config.site.id,
            arch=arch(),
            health=HEALTH_READY,
            labels=config.node.labels,
            cpu_milli=self._machine.cpu_milli,
            memory_mib=self._machine.memory_mib,
            accelerators=config.node.accelerators,
            core_active_power_mw=config.node.core_active_power_mw,
            container_engine=container_engine,
        )

    def hello(self) -> AgentReport:
        """The first report of a stream."""
        time = now()
        config = self._config
        if config.hours_of_day:
            forecast = forecast_from(time.seconds, config.hours_of_day, config.utc_offset_h)
            self._site.forecast.CopyFrom(forecast)
        return AgentReport(
            hello=Hello(
                site=self._site,
                agent_time=time,
                reflector=self._config.reflector_advertised,
                allocations=self._allocations.statuses(),
                nodes=[self._node],
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
            usage = await asyncio.to_thread(self._usage)
            node = self._node
            cpu_permille = min(usage.cpu_milli * 1000 // node.cpu_milli, 1000)
            if (
                abs(cpu_permille - node.cpu_used_permille) >= _CPU_CHANGE_PERMILLE
                or abs(usage.memory_mib - node.memory_mib_used) >= _MEMORY_CHANGE_MIB
            ):
                node.cpu_used_permille, node.memory_mib_used = cpu_permille, usage.memory_mib
                self._reports.put("nodes", AgentReport(nodes=NodesReport(nodes=[node])))
            meters = await asyncio.to_thread(self._power.read, cpu_permille)
            self._reports.put("power", AgentReport(power=self._power_report(usage.cpu_milli, meters)))
            await asyncio.sleep(_USAGE_EVERY_S)

    def _usage(self) -> Usage:
        return self._machine.usage(self._processes())

    def _power_report(self, cpu_used_milli: int, meters: list[MeterReading]) -> PowerReport:
        self._site.pue.CopyFrom(self._power.pue())
        it = in_use([each for each in meters if each.side == METER_SIDE_IT])
        facility = in_use([each for each in meters if each.side == METER_SIDE_FACILITY])
        it_power_mw = it.power_mw if it else self._modelled_mw(cpu_used_milli)
        by_pue_mw = it_power_mw * self._site.pue.average_permille // 1000
        return PowerReport(
            pue=self._site.pue,
            it_power_mw=it_power_mw,
            facility_power_mw=facility.power_mw if facility else by_pue_mw,
            source=FIGURE_SOURCE_MEASURED if it else FIGURE_SOURCE_MODELLED,
            meters=meters,
        )

    def _modelled_mw(self, cpu_used_milli: int) -> int:
        """For want of a meter: what the used cores and the granted devices add to the idle site."""
        cores_mw = cpu_used_milli * self._node.core_active_power_mw // 1000
        devices_mw = sum(
            devices_active_power_mw(entry.run, self._node.accelerators)
            for entry in self._allocations.live()
            if entry.run is not None
        )
        return cores_mw + devices_mw
