"""A site of one node that is this machine, or pretends to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from mumian.api.v1.fleet_pb2 import Node
from mumian_agent.agent.energy_accounts import EnergyAccounts
from mumian_agent.agent.ports import NodeHost
from mumian_agent.agent.site_nodes import SiteNode, SiteNodes
from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime import contact, log_files, process_tree
from mumian_agent.runtime.log_files import LogPiece
from mumian_agent.runtime.node_probe import NodeReading
from mumian_agent.runtime.process_tree import ProcessId


class FixedHost:
    """A machine that always says the same, with this one's processes."""

    address = "127.0.0.1"

    def __init__(self, core_active_power_mw: int = 5000, folder: Path = Path("/nonexistent")) -> None:
        self.contact_path = folder / "contact"
        self.node = Node(
            cpu_milli=1000, memory_mib=512, core_active_power_mw=core_active_power_mw, cpu_used_permille=500
        )
        self.heard_ns: list[int] = []

    async def read(self) -> NodeReading:
        return NodeReading(self.node, contact.now_ns(), cpu_used_milli=500, power_mw=None)

    async def heard(self, clock_ns: int) -> None:
        self.heard_ns.append(clock_ns)

    async def sweep(self, process: ProcessId | None, key: AllocationKey, is_container: bool) -> None:
        await asyncio.to_thread(process_tree.sweep, process, *key)

    def read_logs(
        self, log_dir: Path, tail_bytes: int, has_ended: Callable[[], bool], follow: bool
    ) -> AsyncIterator[LogPiece]:
        return log_files.read(log_dir, tail_bytes, has_ended, follow)


class FixedHosts:
    """Those that the test says."""

    def __init__(self, hosts: Mapping[str, NodeHost]) -> None:
        self.hosts = dict(hosts)

    async def present(self) -> Mapping[str, NodeHost]:
        return dict(self.hosts)


def one_node(
    site_id: str = "gz-test",
    stop_grace_s: float = 0.2,
    core_active_power_mw: int = 5000,
    folder: Path = Path("/nonexistent"),
) -> SiteNodes:
    """The nodes of a site whose only one is called n1, and is there already."""
    host = FixedHost(core_active_power_mw, folder)
    nodes = SiteNodes(site_id, FixedHosts({"n1": host}), stop_grace_s)
    reading = NodeReading(host.node, contact.now_ns(), cpu_used_milli=500, power_mw=None)
    nodes.take_in(SiteNode(f"{site_id}/n1", host, reading, stop_grace_s))
    return nodes


def accounts() -> EnergyAccounts:
    """Of a site without meters."""
    return EnergyAccounts(None)
