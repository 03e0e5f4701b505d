"""What a runner is given to run, and what it shows of it. Both travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mumian.agent.v1.agent_pb2 import AllocationStatus, RunAllocation

from mumian_agent.domain.allocation import AllocationKey, key_of
from mumian_agent.runtime.process_tree import ProcessId


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt of an allocation, with what its node adds to it."""

    run: RunAllocation
    host: str  # where the node's services are reached
    log_dir: str  # holds `stdout` and `stderr`
    environment: Mapping[str, str]  # complete but for MUMIAN_PORT
    core_active_power_mw: int
    devices_active_power_mw: int  # of its shares of devices, all of the time that it runs
    stop_grace_s: float  # from SIGTERM to SIGKILL
    contact: str  # the file in which the newest contact with the coordinator is noted
    restart_count: int = 0  # of this attempt, before this runner
    modelled_uj: int = 0  # energy of this attempt by the model, before this runner
    start_unix_ns: int = 0  # when this attempt first ran, before this runner; 0: it has not
    own_folder: str = ""  # empty: it has none
    engine: str = ""  # the container engine's client; empty: there is none
    hidden: tuple[
        str, ...
    ] = ()  # folders that are empty where it runs, but in a container; none: it sees all

    @property
    def is_container(self) -> bool:
        """Whether it runs in the node's container engine."""
        return bool(self.run.task_group.command.image)

    @property
    def folder(self) -> str | None:
        """Where it starts; None: where the runner does."""
        if self.is_container:
            return None
        wanted = self.run.task_group.command.working_directory
        return str(Path(self.own_folder, wanted)) if self.own_folder else wanted or None

    @property
    def key(self) -> AllocationKey:
        """What it is known by."""
        return key_of(self.run)


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task as it was at one moment. Versions grow with every change, from 1.

    The energy in its status is the model's; what the task is charged is the agent's to say.
    """

    version: int
    status: AllocationStatus
    process: ProcessId | None
