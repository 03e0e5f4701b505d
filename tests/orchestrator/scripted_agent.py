"""An agent that does what the test says: the coordinator's tests must not wait for Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from mumian.agent.v1 import agent_pb2 as pb
from mumian.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from mumian.api.v1 import fleet_pb2, job_pb2, job_service_pb2

Found = TypeVar("Found")


def timestamp(offset_s: float = 0) -> Timestamp:
    """Now, or off by some seconds."""
    stamp = Timestamp()
    stamp.FromNanoseconds(time.time_ns() + int(offset_s * 1e9))
    return stamp


class ScriptedAgent:
    """One site with one node; collects its commands and reports what it is told to."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        site_id: str = "gz",
        epoch: int = 1,
        cpu_milli: int = 4000,
        site: fleet_pb2.Site | None = None,
        core_active_power_mw: int = 0,
        memory_mib: int = 8192,
    ) -> None:
        self._channel, self.site_id, self.epoch = channel, site_id, epoch
        self._site = site or fleet_pb2.Site()
        self._node = fleet_pb2.Node(
            id=f"{site_id}/n1",
            site_id=site_id,
            arch="x86_64",
            health=fleet_pb2.HEALTH_READY,
            cpu_milli=cpu_milli,
            memory_mib=memory_mib,
            core_active_power_mw=core_active_power_mw,
        )
        self.commands: list[pb.CoordinatorCommand] = []
        self._reports: asyncio.Queue[pb.AgentReport] = asyncio.Queue()
        self._sequence = 0
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.error: grpc.aio.AioRpcError | None = None

    async def connect(self, clock_off_s: float = 0, running: tuple[pb.AllocationStatus, ...] = ()) -> None:
        """Say hello and read commands in the background."""
        site = fleet_pb2.Site(
            id=self.site_id, operator_id="op", tier=fleet_pb2.TIER_EDGE, jurisdiction="CN-GD-GZ"
        )
        site.MergeFrom(self._site)
        site.pue.average_permille = site.pue.marginal_permille = 1250
        hello = pb.Hello(
            site=site,
            agent_time=timestamp(clock_off_s),
            reflector="127.0.0.1:9100",
            allocations=running,
            nodes=[self._node],
        )
        self._send(hello=hello)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._beat())]
        await self.until(lambda: self.welcome() or self.error)

    async def disconnect(self) -> None:
        """Break the stream off."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def status(
        self, allocation_id: str, state: job_pb2.AllocationState.ValueType, exit_code: int | None = None
    ) -> None:
        """Report on an allocation."""
        self._send(allocation_status=self.status_of(allocation_id, state, exit_code))

    def report(self, status: pb.AllocationStatus) -> None:
        """Report on an allocation, all of it as given."""
        self._send(allocation_status=status)

    def status_of(
        self, allocation_id: str, state: job_pb2.AllocationState.ValueType, exit_code: int | None = None
    ) -> pb.AllocationStatus:
        """A report on an allocation's first attempt."""
        return pb.AllocationStatus(allocation_id=allocation_id, attempt=1, state=state, exit_code=exit_code)

    def links(self, rtt_us: int, bandwidth_kbps: int = 0) -> None:
        """Report a measured link from the zone."""
        link = fleet_pb2.Link(
            from_id="tianhe",
            to_site_id=self.site_id,
            rtt_p50_us=rtt_us,
            rtt_p99_us=rtt_us,
            source=fleet_pb2.FIGURE_SOURCE_MEASURED,
            sample_count=50,
            sample_time=timestamp(),
            bandwidth_kbps=bandwidth_kbps,
        )
        self._send(links=pb.LinksReport(links=[link]))

    def send(self, **report: object) -> None:
        """Any report."""
        self._send(**report)

    def log_chunk(self, read_id: int, data: bytes, end: bool) -> None:
        """Read out some logs."""
        chunk = pb.LogChunk(read_id=read_id, stream=job_service_pb2.LOG_STREAM_STDOUT, data=data, end=end)
        self._send(log_chunk=chunk)

    def welcome(self) -> pb.Welcome | None:
        """The newest welcome."""
        found = [command.welcome for command in self.commands if command.HasField("welcome")]
        return found[-1] if found else None

    async def run_of(self, job_id: str) -> pb.RunAllocation:
        """The first run command of a job."""

        def find() -> pb.RunAllocation | None:
            runs = [c.run for c in self.commands if c.HasField("run")]
            return next((run for run in runs if run.allocation.job_id == job_id), None)

        return await self.until(find)

    async def until(self, find: Callable[[], Found | None]) -> Found:
        """Wait until the commands say so."""
        async with asyncio.timeout(60):
            while not (found := find()):
                self._news.clear()
                await self._news.wait()
        return found

    def _send(self, **report: object) -> None:
        self._sequence += 1
        message = pb.AgentReport(agent_epoch=self.epoch, sequence=self._sequence, **report)  # type: ignore[arg-type]
        self._reports.put_nowait(message)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            self._send(heartbeat=pb.Heartbeat(agent_time=timestamp()))

    async def _read(self) -> None:
        async def reports() -> AsyncIterator[pb.AgentReport]:
            while True:
                yield await self._reports.get()

        call = AgentServiceStub(self._channel).Connect(reports())
        try:
            async for command in call:
                self.commands.append(command)
                self._news.set()
        except grpc.aio.AioRpcError as error:
            self.error = error
            self._news.set()
        finally:
            call.cancel()
