"""The nodes of the site as they join, leave and change; each is asked again and again how it is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from mumian.api.v1.fleet_pb2 import Node

from mumian_agent.agent.ports import NodeGoneError, NodeHost, NodeHosts, NodeSilentError
from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime import contact
from mumian_agent.runtime.log_files import LogPiece
from mumian_agent.runtime.node_probe import NodeFacts, NodeReading
from mumian_agent.runtime.process_tree import ProcessId

log = logging.getLogger(__name__)

# After its start the agent waits so long for nodes that its journal knows: they may still be joining.
_JOIN_WITHIN_S = 30.0
_LOOK_AGAIN_S = 0.5


class SiteNode:
    """One node that is there, or was."""

    def __init__(self, node_id: str, host: NodeHost, reading: NodeReading, stop_grace_s: float) -> None:
        self.id, self.host, self.reading, self._stop_grace_s = node_id, host, reading, stop_grace_s
        self.is_gone = False
        self._readings_ns: list[tuple[int, int]] = []  # when each came, by our clock and by the node's own

    @property
    def facts(self) -> NodeFacts:
        """What it adds to a task."""
        node = self.reading.node
        return NodeFacts(
            host=self.host.address,
            core_active_power_mw=node.core_active_power_mw,
            accelerators=node.accelerators,
            stop_grace_s=self._stop_grace_s,
            contact=self.host.contact_path,
            engine=self.reading.engine,
            hidden=self.reading.hidden,
        )

    @property
    def node(self) -> Node:
        """As it is reported."""
        shown = Node()
        shown.CopyFrom(self.reading.node)
        shown.id, shown.site_id = self.id, self.id.partition("/")[0]
        return shown

    async def sweep(self, process: ProcessId | None, key: AllocationKey, is_container: bool) -> None:
        """End what is left of a task there; waits while the node is silent.

        Raises:
            NodeGoneError: it has left the site.
        """
        while not self.is_gone:
            try:
                await self.host.sweep(process, key, is_container)
            except NodeSilentError:
                await asyncio.sleep(_LOOK_AGAIN_S)
            else:
                return
        raise NodeGoneError(self.id)

    def read_logs(
        self, log_dir: Path, tail_bytes: int, has_ended: Callable[[], bool], follow: bool
    ) -> AsyncIterator[LogPiece]:
        """What a task has written there; see `log_files.read`. Raises NodeSilentError."""
        return self.host.read_logs(log_dir, tail_bytes, has_ended, follow)

    async def refresh(self, heard_ns: int) -> None:
        """Read it anew, and tell it that the coordinator has heard the site at `heard_ns` by our clock.

        Clocks of two machines do not compare. What does: a reading that came before the coordinator heard us
        was made before, so the moment of that reading, by the node's own clock, is a safe one to count from.
        """
        safe = [own_ns for came_ns, own_ns in self._readings_ns if came_ns <= heard_ns]
        if safe:
            await self.host.heard(max(safe))
        self.reading = await self.host.read()
        self._readings_ns = [pair for pair in self._readings_ns if pair[0] > heard_ns]
        self._readings_ns.append((contact.now_ns(), self.reading.clock_ns))


class SiteNodes:
    """All of them, by id: "<site>/<name>"."""

    def __init__(self, site_id: str, hosts: NodeHosts, stop_grace_s: float) -> None:
        self._site_id, self._hosts, self.stop_grace_s = site_id, hosts, stop_grace_s
        self._nodes: dict[str, SiteNode] = {}
        self._joining: dict[str, asyncio.Task[bool]] = {}
        self._seen: set[str] = set()
        self._begun_s = time.monotonic()

    def all(self) -> Sequence[SiteNode]:
        """Those that are there, the agent's own first."""
        return list(self._nodes.values())

    def get(self, node_id: str) -> SiteNode | None:
        """One that is there."""
        return self._nodes.get(node_id)

    async def find(self, node_id: str) -> SiteNode:
        """One that is there, or comes soon.

        Raises:
            NodeGoneError: it is not of this site, or has left it.
        """
        while (node := self._nodes.get(node_id)) is None:
            is_late = time.monotonic() - self._begun_s > _JOIN_WITHIN_S
            if node_id in self._seen or is_late:
                raise NodeGoneError(node_id)
            await asyncio.sleep(_LOOK_AGAIN_S)
        return node

    def take_in(self, node: SiteNode) -> None:
        """One more is there."""
        self._nodes[node.id] = node
        self._seen.add(node.id)

    async def open(self) -> None:
        """Take in the agent's own node, which comes first; others join with `refresh`."""
        name, host = next(iter((await self._hosts.present()).items()))
        await self._join(f"{self._site_id}/{name}", host)

    async def refresh(self, heard_ns: int) -> bool:
        """Look who is there, and ask everybody how it is; whether nodes have come or gone since.

        `heard_ns`: the newest moment at which the coordinator has surely heard us, by `contact.now_ns`.
        """
        present = {f"{self._site_id}/{name}": host for name, host in (await self._hosts.present()).items()}
        gone = [node for node_id, node in self._nodes.items() if present.get(node_id) is not node.host]
        for node in gone:
            log.warning("node %s has left the site", node.id)
            node.is_gone = True
            del self._nodes[node.id]
        ended = {node_id: task for node_id, task in self._joining.items() if task.done()}
        for node_id in ended:
            del self._joining[node_id]
        # Its first answer takes a while, for which nobody else is to wait.
        for node_id, host in present.items():
            if node_id not in self._nodes and node_id not in self._joining:
                self._joining[node_id] = asyncio.create_task(self._join(node_id, host))
        await asyncio.gather(*(self._ask(node, heard_ns) for node in self.all()))
        return bool(gone) or any(task.result() for task in ended.values())

    async def _join(self, node_id: str, host: NodeHost) -> bool:
        try:
            node = SiteNode(node_id, host, await host.read(), self.stop_grace_s)
        except NodeSilentError as error:
            log.warning("node %s is there, but not ready: %s", node_id, error)
            return False
        self.take_in(node)
        log.info("node %s has joined", node_id)
        return True

    async def _ask(self, node: SiteNode, heard_ns: int) -> None:
        try:
            await node.refresh(heard_ns)
        except NodeSilentError as error:
            log.warning("node %s does not answer: %s", node.id, error)
