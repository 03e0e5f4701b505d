"""The machines of the site as Ray knows them: the agent's own, and those that have joined."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mumian_agent.adapters.ray.probe import Probe
from mumian_agent.adapters.ray.settings import NODE_LABEL, OWN_NODE, RACK_LABEL, SWITCH_LABEL
from mumian_agent.agent.ports import NodeHost, NodeSilentError
from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime.log_files import LogPiece
from mumian_agent.runtime.node_probe import NodeReading
from mumian_agent.runtime.process_tree import ProcessId

log = logging.getLogger(__name__)

_ANSWER_WITHIN_S = 5.0
# The first answer waits for a Python to start.
_FIRST_WITHIN_S = 60.0
_CALLS_AT_ONCE = 16
_LOOK_WHETHER_ENDED_S = 0.2


class RayHost:
    """Another machine, by an actor on it."""

    def __init__(self, name: str, ray_id: str, address: str, labels: Mapping[str, str]) -> None:
        """`labels` are Ray's of the node."""
        self.ray_id, self.address, self._labels = ray_id, address, labels
        self.contact_path = Path("/nonexistent")  # until the first reading
        self._actor: Any = (
            ray.remote(Probe)
            .options(
                num_cpus=0,
                max_concurrency=_CALLS_AT_ONCE,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=ray_id, soft=False),
            )
            .remote(name)
        )
        self._is_known = False

    async def read(self) -> NodeReading:
        """The machine now."""
        if not self._is_known:
            path: str = await self._call(self._actor.contact_path.remote(), _FIRST_WITHIN_S)
            self.contact_path, self._is_known = Path(path), True
        reading: NodeReading = await self._call(self._actor.read.remote())
        node = reading.node
        node.switch_id = node.switch_id or self._labels.get(SWITCH_LABEL, "")
        node.rack_id = node.rack_id or self._labels.get(RACK_LABEL, "")
        return reading

    async def heard(self, clock_ns: int) -> None:
        """The coordinator has heard the site at that time or later, by that machine's clock."""
        await self._call(self._actor.heard.remote(clock_ns))

    async def sweep(self, process: ProcessId | None, key: AllocationKey, is_container: bool) -> None:
        """End what is left of a task there."""
        await self._call(self._actor.sweep.remote(process, key, is_container))

    async def read_logs(
        self, log_dir: Path, tail_bytes: int, has_ended: Callable[[], bool], follow: bool
    ) -> AsyncIterator[LogPiece]:
        """What a task has written there, piece by piece as it is read there."""
        read_id = uuid.uuid4().hex
        pieces = self._actor.read_logs.options(num_returns="streaming").remote(
            read_id, str(log_dir), tail_bytes, follow
        )
        told = asyncio.create_task(self._tell_end(read_id, has_ended)) if follow else None
        try:
            async for reference in pieces:
                yield await reference
        except RayError as error:
            raise NodeSilentError(_first_line(error)) from error
        finally:
            if told is not None:
                told.cancel()
            ray.cancel(pieces)

    async def _tell_end(self, read_id: str, has_ended: Callable[[], bool]) -> None:
        while not has_ended():  # noqa: ASYNC110 -- nobody tells of it
            await asyncio.sleep(_LOOK_WHETHER_ENDED_S)
        await self._call(self._actor.end_logs.remote(read_id))

    async def _call(self, reference: Any, within_s: float = _ANSWER_WITHIN_S) -> Any:
        try:
            return await asyncio.wait_for(reference, within_s)
        except TimeoutError:
            raise NodeSilentError(f"no answer within {within_s:.0f} s") from None
        except RayError as error:
            raise NodeSilentError(_first_line(error)) from error


class RayHosts:
    """All machines of the cluster; each is one host as long as its raylet lives."""

    def __init__(self, own: NodeHost) -> None:
        """`own` is the machine that the agent runs on."""
        self._own = own
        self._own_ray_id = str(ray.get_runtime_context().get_node_id())
        self._hosts: dict[str, RayHost] = {}  # by Ray's id
        self._ray_ids = {OWN_NODE: self._own_ray_id}

    async def present(self) -> Mapping[str, NodeHost]:
        """By name; of two that claim one name the first is taken, until it has gone."""
        table = await asyncio.to_thread(ray.nodes)
        alive = {entry["NodeID"]: entry for entry in table if entry["Alive"]}
        self._hosts = {ray_id: host for ray_id, host in self._hosts.items() if ray_id in alive}
        found: dict[str, NodeHost] = {OWN_NODE: self._own}
        ray_ids = {OWN_NODE: self._own_ray_id}
        # Those known before come first, so that a second node of the same name does not take its place.
        for ray_id in sorted(alive, key=lambda each: each not in self._hosts):
            labels = alive[ray_id]["Labels"]
            name = labels.get(NODE_LABEL) or f"r{ray_id[:12]}"
            if ray_id == self._own_ray_id:
                continue
            if name in found:
                log.warning("a second node called %s is not used; give it another name", name)
                continue
            if ray_id not in self._hosts:
                address = alive[ray_id]["NodeManagerAddress"]
                self._hosts[ray_id] = RayHost(name, ray_id, address, labels)
            found[name], ray_ids[name] = self._hosts[ray_id], ray_id
        self._ray_ids = ray_ids
        return found

    def ray_id(self, node_id: str) -> str | None:
        """Ray's id of a node of the site ("<site>/<name>"); None when it is not there."""
        return self._ray_ids.get(node_id.partition("/")[2])


def _first_line(error: RayError) -> str:
    return str(error).splitlines()[0]
