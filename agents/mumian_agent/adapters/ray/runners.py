"""The site's runners as Ray actors: detached, named, pinned to their node, some kept warm."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import list_named_actors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mumian_agent.adapters.ray.runner import Runner
from mumian_agent.agent.ports import RunnerHandle, RunnerLostError, SiteRuntimeError
from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime.task import Task, TaskView

log = logging.getLogger(__name__)

_PREFIX = "runner-"
# Runners that are done are kept for what comes next: to start one costs about 0.4 s of a core.
_IDLE_ABOVE_WARM = 3
# Not at once after one is taken: the task that took it wants the processor now.
_REFILL_AFTER_S = 1.0
_CALLS_AT_ONCE = 16


class RayRunner:
    """One actor."""

    def __init__(self, name: str, actor: Any) -> None:
        self.name, self.actor = name, actor

    async def run(self, task: Task) -> TaskView:
        """Begin a task. Raises RunnerLostError."""
        view: TaskView = await self._call(self.actor.run.remote(task))
        return view

    async def changed_after(self, key: AllocationKey, version: int) -> TaskView | None:
        """The task once it is newer. Raises RunnerLostError."""
        view: TaskView | None = await self._call(self.actor.changed_after.remote(key, version))
        return view

    async def stop(self, key: AllocationKey) -> None:
        """End the task. Raises RunnerLostError."""
        await self._call(self.actor.stop.remote(key))

    async def ready(self) -> None:
        """Wait until it is there. Raises RunnerLostError."""
        await self._call(self.actor.ready.remote())

    async def _call(self, reference: Any) -> Any:
        try:
            return await reference
        except RayError as error:
            raise RunnerLostError(f"{self.name}: {str(error).splitlines()[0]}") from error


class RayRunners:
    """One pool for each node of the site."""

    def __init__(self, ray_id_of: Callable[[str], str | None], warm: int) -> None:
        """`ray_id_of` gives Ray's id of a node that is there, by its own; `warm` is for each node."""
        self._ray_id_of, self._warm = ray_id_of, warm
        # By Ray's id: a node that has left and come back has no runners yet.
        self._idle: dict[str, list[RayRunner]] = defaultdict(list)
        self._refilling: dict[str, asyncio.Task[None]] = {}

    async def open(self, in_use: Iterable[str]) -> None:
        """Take over the runners of an earlier agent."""
        used = set(in_use)
        for name in list_named_actors():
            if name.startswith(_PREFIX) and name not in used:
                runner = self.find(name)
                if runner is not None:
                    self.give_back(runner)

    async def warm_up(self, node_ids: Iterable[str]) -> None:
        """These nodes are there: keep runners warm on each, and forget those on others."""
        wanted = {ray_id for node_id in node_ids if (ray_id := self._ray_id_of(node_id))}
        for ray_id in self._idle.keys() - wanted:
            del self._idle[ray_id]
        await asyncio.gather(*(self._refill(ray_id) for ray_id in wanted))

    async def take(self, node_id: str) -> RunnerHandle:
        """A free one on that node: warm, or started now."""
        ray_id = self._ray_id_of(node_id)
        if ray_id is None:
            raise SiteRuntimeError(f"node {node_id} is not there")
        if self._idle[ray_id]:
            runner = self._idle[ray_id].pop()
            self._refill_later(ray_id)
            return runner
        try:
            return await self._start(ray_id)
        except RunnerLostError as error:
            raise SiteRuntimeError(f"no runner starts on {node_id}: {error}") from error

    def find(self, name: str) -> RayRunner | None:
        """An actor by its name."""
        try:
            return RayRunner(name, ray.get_actor(name))
        except ValueError:
            return None

    def give_back(self, runner: RunnerHandle) -> None:
        """Keep it warm, unless enough are."""
        assert isinstance(runner, RayRunner)
        idle = self._idle[runner.name.partition("@")[2]]
        if len(idle) < self._warm + _IDLE_ABOVE_WARM:
            idle.append(runner)
        else:
            self.discard(runner)

    def discard(self, runner: RunnerHandle) -> None:
        """End it."""
        assert isinstance(runner, RayRunner)
        # On a thread, as every call that waits for Ray's servers: they may be dead.
        kill = asyncio.get_running_loop().run_in_executor(None, ray.kill, runner.actor)
        kill.add_done_callback(lambda done: done.exception())

    def _refill_later(self, ray_id: str) -> None:
        refilling = self._refilling.get(ray_id)
        if refilling is None or refilling.done():
            self._refilling[ray_id] = asyncio.create_task(self._refill(ray_id, _REFILL_AFTER_S))

    async def _refill(self, ray_id: str, after_s: float = 0) -> None:
        await asyncio.sleep(after_s)
        while len(self._idle[ray_id]) < self._warm:
            try:
                self._idle[ray_id].append(await self._start(ray_id))
            except RunnerLostError as error:
                log.warning("no warm runner: %s", error)
                return

    async def _start(self, ray_id: str) -> RayRunner:
        runner = await asyncio.to_thread(self._create, ray_id)
        await runner.ready()
        return runner

    def _create(self, ray_id: str) -> RayRunner:
        name = f"{_PREFIX}{uuid.uuid4().hex}@{ray_id}"
        actor = (
            ray.remote(Runner)
            .options(
                name=name,
                lifetime="detached",
                # What a task may use is the coordinator's to say; Ray would only say it again.
                num_cpus=0,
                max_concurrency=_CALLS_AT_ONCE,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=ray_id, soft=False),
            )
            .remote()
        )
        return RayRunner(name, actor)
