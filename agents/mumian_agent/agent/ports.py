"""What the agent needs of the world, so that its logic knows neither Ray nor gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from mumian.agent.v1.agent_pb2 import AgentReport

from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime.log_files import LogPiece
from mumian_agent.runtime.node_probe import NodeReading
from mumian_agent.runtime.process_tree import ProcessId
from mumian_agent.runtime.task import Task, TaskView


class SiteRuntimeError(Exception):
    """What runs the site's work does not do so, and why."""


class RunnerLostError(Exception):
    """The runner is gone, and what it knew of its task with it."""


class NodeSilentError(Exception):
    """A node does not answer; it may have left, or be busy."""


class NodeGoneError(Exception):
    """The node is not one of the site's, or no longer. Its argument is the node's id."""

    def __str__(self) -> str:
        return f"node {self.args[0]} has left the site"


class NodeHost(Protocol):
    """One machine of the site, however it is reached. Each method raises NodeSilentError."""

    @property
    def address(self) -> str:
        """Where its services are reached: a name or an IP address."""
        ...

    @property
    def contact_path(self) -> Path:
        """On that machine: the file in which the newest contact with the coordinator is noted."""
        ...

    async def read(self) -> NodeReading:
        """The machine now."""
        ...

    async def heard(self, clock_ns: int) -> None:
        """The coordinator has heard the site at that time or later, by that machine's clock."""
        ...

    async def sweep(self, process: ProcessId | None, key: AllocationKey, is_container: bool) -> None:
        """End what is left of a task there."""
        ...

    def read_logs(
        self, log_dir: Path, tail_bytes: int, has_ended: Callable[[], bool], follow: bool
    ) -> AsyncIterator[LogPiece]:
        """What a task has written there; see `log_files.read`."""
        ...


class NodeHosts(Protocol):
    """Who knows which machines the site has now."""

    async def present(self) -> Mapping[str, NodeHost]:
        """By name. A machine that left and came back is another host."""
        ...


class RunnerHandle(Protocol):
    """Somebody who runs one task at a time, and goes on when the agent dies."""

    @property
    def name(self) -> str:
        """By which `Runners.find` knows it."""
        ...

    async def run(self, task: Task) -> TaskView:
        """Begin a task. Raises RunnerLostError."""
        ...

    async def changed_after(self, key: AllocationKey, version: int) -> TaskView | None:
        """The task once it is newer; None when it does not have it. Raises RunnerLostError."""
        ...

    async def stop(self, key: AllocationKey) -> None:
        """End the task. Raises RunnerLostError."""
        ...


class Runners(Protocol):
    """The runners of a site; some wait, warm."""

    async def open(self, in_use: Iterable[str]) -> None:
        """Take over the runners that are there; those not in use wait for work."""
        ...

    async def warm_up(self, node_ids: Iterable[str]) -> None:
        """These nodes are there now: keep runners warm on each."""
        ...

    async def take(self, node_id: str) -> RunnerHandle:
        """One that is free on that node. Raises SiteRuntimeError."""
        ...

    def find(self, name: str) -> RunnerHandle | None:
        """One that is in use."""
        ...

    def give_back(self, runner: RunnerHandle) -> None:
        """Its task has ended."""
        ...

    def discard(self, runner: RunnerHandle) -> None:
        """It is lost, or is not to be used again."""
        ...


class BundleAwayError(Exception):
    """Nobody gives the bundle now; later somebody may."""


class BundleGoneError(Exception):
    """Nobody will give the bundle, and why."""


class BundleSource(Protocol):
    """What tenants have uploaded for their tasks."""

    async def read(self, allocation_id: str, offset_bytes: int) -> bytes:
        """A piece of what an allocation wants unpacked; empty: there is no more.

        Raises:
            BundleAwayError: ask again.
            BundleGoneError: there is no sense in that.
        """
        ...


# One that is made when it is sent tells all that is new by then.
Report = AgentReport | Callable[[], AgentReport]


class ReportSink(Protocol):
    """Where reports go. Without a connection they are dropped: the next hello tells all that still holds."""

    def put(self, slot: object, report: Report) -> None:
        """Send soon. A report that still waits in the same slot is replaced."""
        ...

    async def put_log(self, report: AgentReport) -> bool:
        """Send in order; wait while too many wait. False when the connection has gone."""
        ...
