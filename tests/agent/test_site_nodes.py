"""Nodes that join, leave, fall silent and are told of contacts, without Ray."""

from __future__ import annotations

import asyncio

import pytest
from mumian_agent.agent import site_nodes
from mumian_agent.agent.ports import NodeGoneError, NodeSilentError
from mumian_agent.agent.site_nodes import SiteNodes
from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.domain.foreign_use import ForeignUse
from mumian_agent.runtime import contact
from mumian_agent.runtime.node_probe import NodeReading
from mumian_agent.runtime.process_tree import ProcessId

from tests.agent.one_node import FixedHost, FixedHosts


class SilentHost(FixedHost):
    """One that does not answer."""

    is_silent = True

    async def read(self) -> NodeReading:
        if self.is_silent:
            raise NodeSilentError("no answer")
        return await super().read()

    async def sweep(self, process: ProcessId | None, key: AllocationKey, is_container: bool) -> None:
        raise NodeSilentError("no answer")


async def refreshed(nodes: SiteNodes, heard_ns: int = 0) -> list[str]:
    """The names after all who are there had time to join."""
    await nodes.refresh(heard_ns)
    await asyncio.sleep(0)
    await nodes.refresh(heard_ns)
    return [node.id for node in nodes.all()]


async def test_nodes_join_and_leave_and_those_gone_are_known_to_be_so() -> None:
    hosts = FixedHosts({"n1": FixedHost()})
    nodes = SiteNodes("gz", hosts, 1.0)
    await nodes.open()
    assert [node.id for node in nodes.all()] == ["gz/n1"]
    hosts.hosts["n2"] = FixedHost()
    assert await refreshed(nodes) == ["gz/n1", "gz/n2"]
    second = await nodes.find("gz/n2")
    del hosts.hosts["n2"]
    assert await nodes.refresh(0)
    assert [node.id for node in nodes.all()] == ["gz/n1"]
    with pytest.raises(NodeGoneError, match="node gz/n2 has left the site"):
        await nodes.find("gz/n2")
    with pytest.raises(NodeGoneError):
        await second.sweep(None, AllocationKey("a", 1), False)


async def test_a_machine_that_came_back_is_another_node() -> None:
    hosts = FixedHosts({"n1": FixedHost(), "n2": FixedHost()})
    nodes = SiteNodes("gz", hosts, 1.0)
    await nodes.open()
    await refreshed(nodes)
    before = await nodes.find("gz/n2")
    hosts.hosts["n2"] = FixedHost()
    await refreshed(nodes)
    assert before.is_gone
    assert await nodes.find("gz/n2") is not before


async def test_a_node_that_is_silent_joins_when_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    late = SilentHost()
    hosts = FixedHosts({"n1": FixedHost(), "n2": late})
    nodes = SiteNodes("gz", hosts, 1.0)
    await nodes.open()
    assert await refreshed(nodes) == ["gz/n1"]
    late.is_silent = False
    assert await refreshed(nodes) == ["gz/n1", "gz/n2"]


async def test_a_node_that_never_came_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_nodes, "_JOIN_WITHIN_S", 0.01)
    monkeypatch.setattr(site_nodes, "_LOOK_AGAIN_S", 0.01)
    nodes = SiteNodes("gz", FixedHosts({"n1": FixedHost()}), 1.0)
    with pytest.raises(NodeGoneError):
        await nodes.find("gz/n9")


async def test_a_node_is_told_only_of_contacts_that_came_after_one_of_its_readings() -> None:
    host = FixedHost()
    hosts = FixedHosts({"n1": host})
    nodes = SiteNodes("gz", hosts, 1.0)
    await nodes.open()
    before_all_ns = contact.now_ns()
    await nodes.refresh(before_all_ns)
    assert host.heard_ns == []
    read_ns = nodes.all()[0].reading.clock_ns
    await nodes.refresh(contact.now_ns())
    assert host.heard_ns == [read_ns]


def test_what_others_use_is_withheld_in_steps_and_does_not_flap() -> None:
    use = ForeignUse()
    seen = set()
    for cpu_milli in (390, 410) * 20:
        use.add(cpu_milli, 1000)
        seen.add(use.withheld())
    assert seen == {(400, 1024), (500, 1024)} or seen == {(400, 1024)}
    assert use.withheld()[1] == 1024
    for _ in range(6):
        use.add(0, 0)
    assert use.withheld() == (0, 0)
