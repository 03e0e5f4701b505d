"""Keeps one task running as its job wishes: starts it, restarts it, meters it, stops it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil
from google.protobuf.timestamp_pb2 import Timestamp
from mumian.agent.v1.agent_pb2 import AllocationStatus
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import AllocationState

from mumian_agent.domain.allocation import RestartPolicy, is_terminal
from mumian_agent.runtime import (
    container,
    limits,
    log_files,
    memory_limit,
    ports,
    precedence,
    process_tree,
    sandbox,
)
from mumian_agent.runtime.cgroup import Cgroup
from mumian_agent.runtime.child import NOT_FOUND, CannotStartError, Child, argv_of, require
from mumian_agent.runtime.cut_off import CutOff
from mumian_agent.runtime.health import Health, health_of
from mumian_agent.runtime.paid_time import PaidTime
from mumian_agent.runtime.task import Task, TaskView
from mumian_agent.runtime.time_limit import TimeLimit

log = logging.getLogger(__name__)

_METER_EVERY_S = 1.0
_ENERGY_SHOWN_EVERY_S = 10.0
_STOP_LOOK_EVERY_S = 0.02
_SANDBOX_LOOK_EVERY_S = 0.002


class Supervisor:
    """One task from its start to its terminal state. `run` never raises for what the task does."""

    def __init__(self, task: Task) -> None:
        allocation = task.run.allocation
        self._task, self._group = task, task.run.task_group
        self._policy = RestartPolicy.of(task.run, task.restart_count)
        self._status = AllocationStatus(
            allocation_id=allocation.id,
            attempt=allocation.attempt,
            state=job_pb2.ALLOCATION_STATE_STARTING,
            restart_count=task.restart_count,
            it_energy_uj=task.modelled_uj,
        )
        if task.start_unix_ns:
            self._status.start_time.FromNanoseconds(task.start_unix_ns)
        self._version = 1
        self._changed = asyncio.Condition()
        self._stop = asyncio.Event()
        self._cut_off, self._paid_time = CutOff(task), PaidTime(task)
        self._memory: asyncio.Future[str] | None = None  # of the child that runs: what is over its limit
        self._cgroup: Cgroup | None = None  # of the child that runs, where the kernel keeps its limits
        self._child: Child | None = None
        self._ports: dict[str, int] = {}
        self._cpu_s_booked = 0.0
        self._cpu_s_of_child = 0.0
        self._up_s_booked = 0.0

    def view(self) -> TaskView:
        """The task as it is now."""
        status = AllocationStatus()
        status.CopyFrom(self._status)
        child = self._child
        process = child.id if child and not child.has_ended else None
        return TaskView(self._version, status, process)

    async def changed_after(self, version: int) -> TaskView:
        """The task as soon as it is newer than that version."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._version > version)
        return self.view()

    def stop(self) -> None:
        """End the task: SIGTERM to all its processes, and SIGKILL to those left after the grace."""
        self._stop.set()

    async def run(self) -> None:
        """Run the task to its terminal state."""
        limit_ms = self._group.time_limit_ms
        try:
            async with asyncio.timeout(limit_ms / 1000 if limit_ms else None):
                await self._run_until_done()
        except TimeoutError:
            await self._end_tree()
            await self._finish(
                job_pb2.ALLOCATION_STATE_FAILED,
                f"killed at its time_limit_ms ({limit_ms}); raise it if the task needs longer",
            )

    async def _run_until_done(self) -> None:
        meter = asyncio.create_task(self._meter())
        overdue = [asyncio.create_task(self._stop_when_over(each)) for each in self._limits]
        if any(each.look() for each in self._limits):
            self._stop.set()
        try:
            while not self._stop.is_set():
                try:
                    exit_code, reason, up_s = await self._run_once()
                except CannotStartError as error:
                    await self._finish(job_pb2.ALLOCATION_STATE_FAILED, str(error), error.exit_code)
                    return
                if self._stop.is_set():
                    break
                if not self._policy.wants_restart(exit_code):
                    await self._finish(job_pb2.ALLOCATION_STATE_SUCCEEDED, "", exit_code)
                    return
                delay_s = self._policy.next_delay_s(up_s)
                if delay_s is None:
                    await self._finish(job_pb2.ALLOCATION_STATE_FAILED, self._last_words(reason), exit_code)
                    return
                self._status.restart_count = self._policy.restart_count
                await self._show(
                    job_pb2.ALLOCATION_STATE_STARTING,
                    f"{reason}; restart {self._policy.restart_count} in {delay_s:.1f} s",
                )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), delay_s)
            await self._end_tree()
            over = self._over
            self._status.cut_off, self._status.unfunded = over is self._cut_off, over is self._paid_time
            why = over.reason if over else "stopped as asked"
            await self._finish(job_pb2.ALLOCATION_STATE_CANCELLED, why)
        finally:
            meter.cancel()
            for each in overdue:
                each.cancel()

    @property
    def _limits(self) -> tuple[TimeLimit, ...]:
        """What may end it though nobody asks for it."""
        return self._cut_off, self._paid_time

    @property
    def _over(self) -> TimeLimit | None:
        """The one that has ended it, if any."""
        return next((each for each in self._limits if each.is_over), None)

    async def _stop_when_over(self, limit: TimeLimit) -> None:
        await limit.wait()
        self._stop.set()

    async def _run_once(self) -> tuple[int, str, float]:
        """Start the child and wait for its end; its exit code, what happened, and its seconds of life.

        Raises:
            CannotStartError: there is nothing to run.
        """
        try:
            self._ports = ports.settle(self._group.ports, self._task.host, self._ports)
        except ports.PortTakenError as error:
            return NOT_FOUND, str(error), 0.0
        environment = {**self._task.environment, **ports.variables(self._ports)}
        folder = self._task.folder
        argv = self._argv(environment)
        executed = self._executed_with(environment)
        if self._task.is_container:
            await self._remove_container()  # of an earlier start that was cut short
        self._child = child = Child(argv, folder, executed, Path(self._task.log_dir))
        precedence.apply(child.id.pid, precedence.niceness_of(self._task.run))
        self._cgroup = limits.keep(self._task)
        if self._cgroup is not None:
            self._take_in([child.id.pid])
        health = health_of(
            self._group,
            self._task.host,
            self._ports,
            executed,
            folder,
            functools.partial(self._inside, environment),
        )
        ended = asyncio.create_task(child.wait())
        stopped = asyncio.create_task(self._stop.wait())
        unwell = asyncio.create_task(self._until_unwell(child, health))
        self._memory = over_memory = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait({ended, stopped, unwell, over_memory}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in (ended, stopped, unwell):
                waiting.cancel()
        if self._stop.is_set():
            return 0, "", 0.0
        if over_memory.done():
            # At once: while it has time to end by itself, it may take what others need.
            await self._sweep(child)
            exit_code = await child.wait()
            self._book(child)
            return exit_code, over_memory.result(), child.up_s
        if not child.has_ended:
            await self._end_tree()
            return await child.wait(), unwell.result(), child.up_s
        exit_code = await child.wait()
        reason = self._over_memory() or _words(exit_code)
        # What a task leaves behind would go on using what the coordinator gives to others.
        await self._sweep(child)
        self._book(child)
        return exit_code, reason, child.up_s

    def _argv(self, environment: Mapping[str, str]) -> list[str]:
        """What to execute.

        Raises:
            CannotStartError: it is a container, and there is no engine; or the command is not there.
        """
        task = self._task
        if not task.is_container:
            argv = argv_of(self._group.command)
            if not task.hidden:
                return argv
            require(argv[0], task.folder, environment)
            return self._inside(environment, argv)
        if not task.engine:
            raise CannotStartError(
                f"image {self._group.command.image} cannot run: this node has no container engine; "
                "install podman or docker, and start the agent again",
                NOT_FOUND,
            )
        return container.argv_of(task.engine, task.run, environment, task.own_folder)

    def _executed_with(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        """The environment in which what `_argv` and `_inside` give is executed."""
        is_hidden = self._task.hidden and not self._task.is_container
        return sandbox.environment_of(environment) if is_hidden else environment

    def _inside(self, environment: Mapping[str, str], argv: list[str]) -> list[str]:
        """A command of the task's: in its container, if it has one, or where it sees what it may see."""
        task = self._task
        if task.is_container:
            return container.inside(task.engine, task.run, argv)
        if not task.hidden:
            return argv
        return sandbox.argv_of(argv, environment, task.hidden, task.own_folder, task.folder)

    async def _remove_container(self) -> None:
        if self._task.is_container and self._task.engine:
            await asyncio.to_thread(container.remove, self._task.engine, self._task.key)

    async def _until_unwell(self, child: Child, health: Health) -> str:
        """Show the task as running once it is ready; return why it is to be restarted."""
        while self._task.hidden and sandbox.is_being_made(child.id.pid):  # noqa: ASYNC110
            await asyncio.sleep(_SANDBOX_LOOK_EVERY_S)
        if reason := await health.until_ready():
            return reason
        if not self._status.HasField("start_time"):
            self._status.start_time.CopyFrom(_now())
        del self._status.endpoints[:]
        for name, number in self._ports.items():
            self._status.endpoints.add(port=name, address=f"{self._task.host}:{number}")
        await self._show(job_pb2.ALLOCATION_STATE_RUNNING)
        return await health.until_unwell(self._show_health)

    async def _show_health(self, fault: str) -> None:
        await self._show(job_pb2.ALLOCATION_STATE_RUNNING, health_fault=fault)

    async def _end_tree(self) -> None:
        """SIGTERM, a grace, SIGKILL; for every process of the task."""
        child = self._child
        if child is None:
            return
        grace_s = self._over.grace_s if self._over else self._task.stop_grace_s
        deadline_s = time.monotonic() + grace_s
        process_tree.send(self._tree(child), signal.SIGTERM)
        while time.monotonic() < deadline_s and self._tree(child):  # noqa: ASYNC110
            await asyncio.sleep(_STOP_LOOK_EVERY_S)
        await self._sweep(child)
        await child.wait()
        self._book(child)

    def _tree(self, child: Child) -> list[psutil.Process]:
        return process_tree.tree_of(child.id, *self._task.key)

    async def _sweep(self, child: Child) -> None:
        self._sample()
        await asyncio.to_thread(process_tree.sweep, child.id, *self._task.key)
        if self._cgroup is not None:
            kept, self._cgroup = self._cgroup, None
            await asyncio.to_thread(limits.end, kept, self._task.key)
        await self._remove_container()

    async def _show(
        self, state: AllocationState.ValueType, message: str = "", health_fault: str = ""
    ) -> None:
        self._status.state, self._status.message = state, message
        self._status.health_fault = health_fault
        self._status.it_energy_uj = self._modelled_uj()
        async with self._changed:
            self._version += 1
            self._changed.notify_all()

    async def _finish(
        self, state: AllocationState.ValueType, message: str, exit_code: int | None = None
    ) -> None:
        if is_terminal(self._status):
            return
        if exit_code is not None:
            self._status.exit_code = exit_code
        self._status.end_time.CopyFrom(_now())
        await self._show(state, message)

    def _last_words(self, reason: str) -> str:
        restarts = self._policy.restart_count
        if not restarts:
            return reason
        return f"{reason}, after {restarts} restart{'' if restarts == 1 else 's'}"

    # Energy.

    async def _meter(self) -> None:
        shown_s = time.monotonic()
        while True:
            await asyncio.sleep(_METER_EVERY_S)
            self._sample()
            self._rotate()
            due = time.monotonic() - shown_s >= _ENERGY_SHOWN_EVERY_S
            if due and self._modelled_uj() > self._status.it_energy_uj:
                shown_s = time.monotonic()
                await self._show(self._status.state, self._status.message, self._status.health_fault)

    def _rotate(self) -> None:
        try:
            log_files.rotate(Path(self._task.log_dir))
        except OSError as error:
            log.warning("logs of %s are not rotated: %s", self._task.key, error)

    def _sample(self) -> None:
        """Look at what runs now; what was seen stays counted, though its process may end unwaited for."""
        members = process_tree.members(*self._task.key)
        self._cpu_s_of_child = max(self._cpu_s_of_child, process_tree.cpu_seconds(members))
        if self._cgroup is not None:
            self._take_in(process.pid for process in members)
            return
        over = memory_limit.excess(members, self._group.resources.memory_mib)
        if over and self._memory is not None and not self._memory.done():
            self._memory.set_result(over)

    def _take_in(self, pids: Iterable[int]) -> None:
        """Also what it had started before it was there itself."""
        assert self._cgroup is not None
        try:
            self._cgroup.take(pids)
        except OSError as error:
            log.warning("limits of %s are looked at, not kept: %s", self._task.key, error)
            self._cgroup = None

    def _over_memory(self) -> str:
        """Why it has ended, if that was its memory."""
        if self._cgroup is None or not self._cgroup.was_over_memory():
            return ""
        return f"memory limit ({self._group.resources.memory_mib} MiB) exceeded: killed by the kernel"

    def _book(self, child: Child) -> None:
        """Close the account of an ended child."""
        if self._child is child:
            self._cpu_s_booked += max(self._cpu_s_of_child, child.cpu_s)
            self._up_s_booked += child.up_s
            self._cpu_s_of_child = 0.0
            self._child = None

    def _modelled_uj(self) -> int:
        """What this attempt has used by the model, in microjoule: by this its node's meter is shared out."""
        up_s = self._up_s_booked + (self._child.up_s if self._child else 0.0)
        cpu_s = self._cpu_s_booked + self._cpu_s_of_child
        used_mj = cpu_s * self._task.core_active_power_mw + up_s * self._task.devices_active_power_mw
        return self._task.modelled_uj + int(used_mj * 1000)


def _words(exit_code: int) -> str:
    if exit_code <= 128:
        return f"exited with status {exit_code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(exit_code - 128).name}"
    return f"exited with status {exit_code}"


def _now() -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(time.time_ns())
    return stamp
