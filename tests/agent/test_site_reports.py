"""What a site says of its nodes: all at first, then what is new."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from mumian.agent.v1.agent_pb2 import NodesChange
from mumian_agent.agent.site_nodes import SiteNodes
from mumian_agent.agent.site_reports import SiteReports
from mumian_agent.domain.config import parse
from mumian_agent.runtime.probing.prober import Prober

from tests.agent.one_node import FixedHost, FixedHosts
from tests.agent.test_config import GOOD


class _Idle:
    """A site where nothing runs."""

    def statuses(self) -> list[Any]:
        return []


def told(change: NodesChange) -> tuple[list[str], list[str]]:
    return [node.id for node in change.nodes], list(change.removed_node_ids)


async def test_what_follows_the_hello_tells_only_of_nodes_that_are_new_otherwise_or_gone(
    tmp_path: Path,
) -> None:
    hosts = FixedHosts({name: FixedHost() for name in ("n1", "n2", "n3")})
    nodes = SiteNodes("gz-edge", hosts, 1.0)
    await nodes.open()

    async def look() -> None:
        for _ in range(2):  # who joins is there with the next look
            await nodes.refresh(0)

    await look()
    nothing: Any = cast(Any, None)
    prober = Prober("gz-edge", {}, 200, 256)
    reports = SiteReports(
        parse(GOOD), 1, nodes, cast(Any, _Idle()), *(nothing, prober, nothing, nothing, nothing), nothing
    )
    assert len(reports.hello().hello.nodes) == 3
    assert not reports._has_changed()

    second = hosts.hosts["n2"]
    assert isinstance(second, FixedHost)
    second.node.cpu_milli = 500
    del hosts.hosts["n3"]
    hosts.hosts["n4"] = FixedHost()
    await look()
    assert reports._has_changed()
    assert told(reports._change().nodes_change) == (["gz-edge/n2", "gz-edge/n4"], ["gz-edge/n3"])
    assert not reports._has_changed()
    # A new stream hears all.
    assert len(reports.hello().hello.nodes) == 3
    prober.close()
