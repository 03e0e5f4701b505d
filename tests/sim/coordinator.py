"""A coordinator of a simulation: the real campaign, terms, services and servicers, without gRPC and etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from mumian.agent.v1.agent_pb2 import AgentReport, CoordinatorCommand
from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.grpc.agent_service import AgentService
from mumian_orchestrator.adapters.grpc.job_service import JobService
from mumian_orchestrator.adapters.grpc.money_service import MoneyService
from mumian_orchestrator.adapters.memory.key_value import MemoryKeyValue
from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.main.leading import lead
from mumian_orchestrator.services.leadership import campaign, leader_key, leader_name

from tests.sim.processes import Process
from tests.sim.roads import (
    KEEPALIVE_S,
    CallRefusedError,
    Metadata,
    Pipe,
    Road,
    Roads,
    UnreachableError,
)
from tests.sim.store import RememberingCluster, StoreLink, Weather

_CALL_S = 5.0


class Stream:
    """An agent's stream to a coordinator; each end finds out by itself that it has broken."""

    def __init__(self, coordinator: Coordinator, site_id: str, roads: Roads) -> None:
        self.site_id, self._coordinator, self._roads = site_id, coordinator, roads
        self.there, self.back = roads.road(site_id, coordinator.name), roads.road(coordinator.name, site_id)
        self.reports = Pipe(roads, self.there, AgentReport, is_robust=True)
        self.commands = Pipe(roads, self.back, CoordinatorCommand, is_robust=False)
        self.refused: CallRefusedError | None = None
        self._serving: asyncio.Task[None] | None = None

    def serve(self) -> None:
        """The coordinator takes it."""
        self._serving = self._coordinator.process.start(self._serve())

    async def _serve(self) -> None:
        try:
            agents = self._coordinator.agents
            if agents is not None:
                context: Any = Metadata()
                async for command in agents.Connect(self.reports.messages(), context):
                    self.commands.put(command)
        except CallRefusedError as refused:
            self.refused = refused
        finally:
            self._coordinator.streams.pop(self, None)
            self._roads.later(self._roads.way_s(), self._closed_by_coordinator)

    def _closed_by_coordinator(self) -> None:
        if self.back.is_closed:  # the agent finds out by its pings, at the latest when the road is open again
            self._roads.later(KEEPALIVE_S, self._closed_by_coordinator)
        else:
            self.commands.break_off()

    def agent_gone(self) -> None:
        """The agent's end has closed, or its process died."""
        self.commands.break_off()
        self._roads.later(self._roads.way_s(), self._tell_coordinator, self.there)

    def coordinator_gone(self) -> None:
        """The coordinator's process has died."""
        self._roads.later(self._roads.way_s(), self._closed_by_coordinator)

    def closed(self) -> None:
        """A road was closed: when it stays so, both ends give up, each in its time."""
        for give_up in (self.commands.break_off, self._give_up_coordinator):
            self._roads.later(KEEPALIVE_S + self._roads.random.uniform(0, 2), self._if_closed, give_up)

    def coordinator_silent(self) -> None:
        """The coordinator's process sleeps, and answers no pings."""
        self._roads.later(KEEPALIVE_S + self._roads.random.uniform(0, 2), self._if_silent)

    def _if_closed(self, give_up: Callable[[], None]) -> None:
        if self.there.is_closed or self.back.is_closed:
            give_up()

    def _if_silent(self) -> None:
        if not self._coordinator.process.runs:
            self.commands.break_off()
            self._roads.later(self._roads.way_s(), self._tell_coordinator, self.there)

    def _tell_coordinator(self, road: Road) -> None:
        if not road.is_closed:
            self._give_up_coordinator()

    def _give_up_coordinator(self) -> None:
        self.reports.break_off()
        if self._serving is not None:
            self._coordinator.process.call(self._serving.cancel)


class Coordinator:
    """One of several: started, killed, stopped and continued by a simulation."""

    def __init__(
        self,
        name: str,
        config: Config,
        cluster: RememberingCluster,
        everywhere: Weather,
        roads: Roads,
        crashed: Callable[[str], None],
    ) -> None:
        """`crashed` is told when its process ends with an exception."""
        self.name, self._config, self._cluster, self._roads = name, config, cluster, roads
        self._crashed = crashed
        self._everywhere = everywhere
        self.weather, self.clock = Weather(), VirtualClock()
        self.streams: dict[Stream, None] = {}  # in the order in which they came
        self.services: Services | None = None  # while it leads
        self.jobs: JobService | None = None
        self.money: MoneyService | None = None
        self.agents: AgentService | None = None
        self.process = Process(name)
        self.process.kill()

    def start(self) -> None:
        """Start it, if it does not run."""
        if not self.process.is_alive:
            self._closed()
            self.process = Process(self.name)
            self.process.live(self._live(self.process), self._crashed)

    async def _live(self, process: Process) -> None:
        link = StoreLink(process, self._everywhere, self.weather, self._roads.random, self._roads.world)
        kv, config = MemoryKeyValue(self._cluster, link), self._config
        self._stop = asyncio.Event()
        while not self._stop.is_set():
            name = leader_name(self.name, "simulated")
            term = await campaign(kv, leader_key(config.key_prefix), name, config.lease_ttl_s)
            await lead(config, kv, term, CoreEngine(config.policy), self.clock, self, self._stop)
        process.kill()

    async def open(self, services: Services) -> None:
        """It leads: let everybody in."""
        self.services = services
        self.jobs = JobService(services.admission, services.endpoints, services.bundles)
        self.money = MoneyService(services.treasury)
        self.agents = AgentService(
            services.sessions, services.reports, services.bundles, services.access.sites
        )

    async def close(self) -> None:
        """It leads no more."""
        self._closed()
        for stream in list(self.streams):
            stream.coordinator_gone()

    def _closed(self) -> None:
        self.services = self.jobs = self.money = self.agents = None

    # What is done to it.

    def kill(self) -> None:
        """kill -9: its connections break, and everybody who is connected sees it."""
        self.process.kill()
        self._closed()
        streams, self.streams = self.streams, {}
        for stream in streams:
            stream.coordinator_gone()

    def sleep(self) -> None:
        """SIGSTOP."""
        self.process.stop()
        for stream in self.streams:
            stream.coordinator_silent()

    def wake(self) -> None:
        """SIGCONT."""
        self.process.resume()

    def hand_over(self) -> None:
        """SIGTERM, to one that leads."""
        if self.process.runs:
            self.process.call(self._stop.set)

    # Who asks it.

    def connect(self, site_id: str) -> Stream | None:
        """An agent's stream, if somebody listens."""
        stream = Stream(self, site_id, self._roads)
        if not self.process.is_alive or self.agents is None or stream.there.is_closed:
            return None
        self.streams[stream] = None
        stream.serve()
        return stream

    async def call(
        self,
        caller: str,
        tenant: str,
        work: Callable[[Any, Any], Awaitable[Any]],
        *,
        times: int = 1,
        door: str = "jobs",
    ) -> Any:
        """One call of a tenant at a service (`door`: jobs, money), which may arrive more than once.

        Raises:
            UnreachableError: there is no answer.
            CallRefusedError: the answer is an error.
        """
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        there, back = self._roads.road(caller, self.name), self._roads.road(self.name, caller)

        async def serve() -> None:
            service = getattr(self, door)
            if service is None:
                answer: Any = UnreachableError("it does not lead")
            else:
                try:
                    answer = await work(service, Metadata(tenant))
                except CallRefusedError as refused:
                    answer = refused
            self._roads.later(self._roads.way_s(), come_back, answer)

        def arrive() -> None:
            if there.is_closed:
                return
            if not self.process.is_alive:
                come_back(UnreachableError("nobody listens"))
            else:
                self.process.start(serve())

        def come_back(answer: Any) -> None:
            if answered.done() or back.is_closed:
                return
            if isinstance(answer, Exception):
                answered.set_exception(answer)
            else:
                answered.set_result(answer)

        for _ in range(times):
            self._roads.later(self._roads.way_s(), arrive)
        try:
            async with asyncio.timeout(_CALL_S):
                return await answered
        except TimeoutError:
            raise UnreachableError("no answer in time") from None
