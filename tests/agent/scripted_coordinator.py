"""A coordinator that says what the test says: the agent's tests must not wait for etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from mumian.agent.v1 import agent_pb2 as pb
from mumian.agent.v1.agent_service_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from mumian.api.v1 import job_pb2

Found = TypeVar("Found")
WITHIN_S = 120.0


class ScriptedCoordinator(AgentServiceServicer):
    """Collects the reports of one agent and sends it commands."""

    def __init__(self) -> None:
        self.term = 1
        self.reports: list[pb.AgentReport] = []
        self.wanted: list[pb.RunAllocation] = []  # what every welcome lists
        self.refusal: tuple[grpc.StatusCode, str, str] | None = None  # code, reason, message
        self.confirms = True  # answers terminal states by status_stored
        self.streams = 0
        self.bundles: dict[str, bytes] = {}  # by allocation
        self._commands: asyncio.Queue[pb.CoordinatorCommand | None] = asyncio.Queue()
        self._news = asyncio.Event()

    async def start(self, port: int) -> None:
        """Listen."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_AgentServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"127.0.0.1:{port}")
        await self._server.start()

    async def stop(self) -> None:
        """Break every stream off and listen no more."""
        self._commands.put_nowait(None)
        await self._server.stop(0)

    async def Connect(self, request: AsyncIterator[pb.AgentReport], context: Any) -> Any:  # noqa: N802
        """One stream."""
        self.streams += 1
        if self.refusal:
            code, reason, message = self.refusal
            packed = AnyMessage()
            packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="mumian.dev"))
            status = status_pb2.Status(code=code.value[0], message=message, details=[packed])
            await context.abort_with_status(rpc_status.to_status(status))
        self._commands = asyncio.Queue()
        reader = asyncio.create_task(self._read(request))
        try:
            welcome = pb.Welcome(heartbeat_interval_ms=200, allocations=self.wanted)
            yield pb.CoordinatorCommand(leader_term=self.term, welcome=welcome)
            while (command := await self._commands.get()) is not None:
                yield command
        finally:
            reader.cancel()

    async def ReadBundle(self, request: pb.ReadBundleRequest, context: Any) -> pb.ReadBundleResponse:  # noqa: N802
        """A piece of what the test has given for an allocation."""
        start = request.offset_bytes
        return pb.ReadBundleResponse(data=self.bundles[request.allocation_id][start : start + 100])

    async def CheckSite(self, request: pb.CheckSiteRequest, context: Any) -> pb.CheckSiteResponse:  # noqa: N802
        """It takes any."""
        return pb.CheckSiteResponse()

    def run(self, run: pb.RunAllocation) -> None:
        """Command a run."""
        self.send(run=run)

    def stop_allocation(self, allocation_id: str, attempt: int = 1) -> None:
        """Command a stop."""
        self.send(stop=pb.StopAllocation(allocation_id=allocation_id, attempt=attempt))

    def send(self, term: int | None = None, **command: Any) -> None:
        """Any command."""
        self._commands.put_nowait(pb.CoordinatorCommand(leader_term=term or self.term, **command))

    def statuses(self, allocation_id: str) -> list[pb.AllocationStatus]:
        """All that was reported of an allocation, in order, the hellos included."""
        found = []
        for report in self.reports:
            listed = report.hello.allocations if report.HasField("hello") else [report.allocation_status]
            found += [status for status in listed if status.allocation_id == allocation_id]
        return found

    async def status(
        self, allocation_id: str, *states: job_pb2.AllocationState.ValueType
    ) -> pb.AllocationStatus:
        """The newest report of an allocation, as soon as it is in one of the states."""

        def find() -> pb.AllocationStatus | None:
            known = self.statuses(allocation_id)
            return known[-1] if known and known[-1].state in states else None

        return await self.until(find)

    async def until(self, find: Callable[[], Found | None], within_s: float = WITHIN_S) -> Found:
        """Wait until the reports say so."""
        async with asyncio.timeout(within_s):
            while not (found := find()):
                self._news.clear()
                await self._news.wait()
        return found

    async def logs(
        self, allocation_id: str, read_id: int, follow: bool = False, tail_bytes: int = 0
    ) -> list[pb.LogChunk]:
        """Read logs to their end."""
        self.send(
            read_logs=pb.ReadLogs(
                read_id=read_id, allocation_id=allocation_id, follow=follow, tail_bytes=tail_bytes
            )
        )

        def chunks() -> list[pb.LogChunk]:
            return [r.log_chunk for r in self.reports if r.log_chunk.read_id == read_id]

        await self.until(lambda: any(chunk.end for chunk in chunks()))
        return chunks()

    async def _read(self, reports: AsyncIterator[pb.AgentReport]) -> None:
        async for report in reports:
            self.reports.append(report)
            self._news.set()
            status = report.allocation_status
            if self.confirms and status.state >= job_pb2.ALLOCATION_STATE_SUCCEEDED:
                self.send(
                    status_stored=pb.AllocationStatusStored(
                        allocation_id=status.allocation_id, attempt=status.attempt, state=status.state
                    )
                )


def run_of(
    allocation_id: str,
    *argv: str,
    attempt: int = 1,
    kind: job_pb2.JobKind.ValueType = job_pb2.JOB_KIND_BATCH,
    **group: Any,
) -> pb.RunAllocation:
    """A command to run one task."""
    command = group.pop("command", None) or job_pb2.Command(argv=argv)
    return pb.RunAllocation(
        allocation=job_pb2.Allocation(
            id=allocation_id,
            job_id=allocation_id.split(".")[0],
            attempt=attempt,
            site_id="gz-test",
            node_id="gz-test/n1",
            task_group="main",
        ),
        kind=kind,
        task_group=job_pb2.TaskGroup(name="main", count=1, command=command, **group),
        job_name="test",
    )
