"""Makes what runs here what the coordinator wants to run here, and reports how it goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from mumian.agent.v1.agent_pb2 import AgentReport, AllocationStatus, AllocationStatusStored, RunAllocation
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import AllocationState

from mumian_agent.agent.energy_accounts import EnergyAccounts
from mumian_agent.agent.ports import (
    BundleAwayError,
    BundleGoneError,
    NodeGoneError,
    NodeSilentError,
    ReportSink,
    RunnerHandle,
    RunnerLostError,
    Runners,
    SiteRuntimeError,
)
from mumian_agent.agent.site_nodes import SiteNode, SiteNodes
from mumian_agent.agent.task_folders import TaskFolders
from mumian_agent.domain.allocation import AllocationKey, RestartPolicy, is_terminal, key_of, missing_secrets
from mumian_agent.runtime import paid_time
from mumian_agent.runtime.environment import devices_active_power_mw, environment_of
from mumian_agent.runtime.journal import Entry, Journal
from mumian_agent.runtime.process_tree import NODE_VARIABLE
from mumian_agent.runtime.task import Task, TaskView

log = logging.getLogger(__name__)

_STOP_MARGIN_S = 3.0
_DISK_EVERY_S = 10.0
_BUNDLE_AGAIN_FIRST_S, _BUNDLE_AGAIN_LAST_S = 0.5, 10.0
# Half of what the coordinator takes in one message.
HELLO_STATUSES_BYTES_MAX = 2 * 1024 * 1024
_STATUS_OVERHEAD_BYTES = 8
# For the job; what Ray says of it is in the agent's log.
_RUNNER_ENDED = "the process that ran it at its site has ended"


def now() -> Timestamp:
    """The agent's clock."""
    stamp = Timestamp()
    stamp.FromNanoseconds(time.time_ns())
    return stamp


class Allocations:
    """The attempts that this agent knows, each attended by a coroutine of its own until it has ended."""

    def __init__(
        self,
        journal: Journal,
        runners: Runners,
        reports: ReportSink,
        nodes: SiteNodes,
        accounts: EnergyAccounts,
        folders: TaskFolders,
        coordinators: Sequence[str] = (),
        clock: Callable[[], Timestamp] = now,
    ) -> None:
        """`coordinators` (host:port each) are told to tasks."""
        self._journal, self._runners, self._reports, self._nodes = journal, runners, reports, nodes
        self._accounts, self._folders, self._coordinators = accounts, folders, coordinators
        self._clock = clock
        self._entries = {entry.key: entry for entry in journal.load()}
        self._held_by: dict[AllocationKey, RunnerHandle] = {}
        self._welcomed = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._closing = False
        self._left_out_of_hello: list[Entry] = []

    # What others may know.

    def runners_in_use(self) -> set[str]:
        """The names of those that have a task, by the journal."""
        return {entry.runner for entry in self._entries.values() if entry.is_live and entry.runner}

    def statuses(self) -> list[AllocationStatus]:
        """Of everything that the coordinator does not surely know the end of: what runs, then what has ended.

        A hello takes so much and no more; the ends for which it has no room are reported after the welcome.
        """
        untold = [entry for entry in self._entries.values() if not entry.stored]
        untold.sort(key=lambda entry: not entry.is_live)
        size_bytes, told = 0, 0
        for entry in untold:
            size_bytes += entry.status.ByteSize() + _STATUS_OVERHEAD_BYTES
            if size_bytes > HELLO_STATUSES_BYTES_MAX and not entry.is_live:
                break
            told += 1
        self._left_out_of_hello = untold[told:]
        return [entry.status for entry in untold[:told]]

    def newest_of(self, allocation_id: str) -> Entry | None:
        """The newest attempt of an allocation."""
        found = [entry for key, entry in self._entries.items() if key.allocation_id == allocation_id]
        return max(found, key=lambda entry: entry.key.attempt, default=None)

    def all(self) -> list[Entry]:
        """What is known, ended or not."""
        return list(self._entries.values())

    def live(self) -> list[Entry]:
        """What has not ended."""
        return [entry for entry in self._entries.values() if entry.is_live]

    # What is commanded.

    def adopt(self) -> None:
        """Attend to what an earlier agent left: what still runs goes on, the rest waits for the welcome."""
        for entry in self.live():
            runner = self._runners.find(entry.runner) if entry.runner else None
            if runner is None:
                entry.status.state = job_pb2.ALLOCATION_STATE_STARTING
                entry.status.message = "the site went down while it ran"
            self._start(self._attend(entry, runner, is_adopted=True))

    def welcome(self, runs: Iterable[RunAllocation]) -> None:
        """These are to run here, and nothing else."""
        wanted = {key_of(run): run for run in runs}
        for entry in self.live():
            if entry.key not in wanted:
                self.stop(entry.key)
        for run in wanted.values():
            self.run(run)
        left_out, self._left_out_of_hello = self._left_out_of_hello, []
        for entry in left_out:
            self._report(entry)
        self._welcomed.set()

    def run(self, run: RunAllocation) -> None:
        """Run an attempt; the same one again changes nothing, and one older than is known comes too late."""
        key = key_of(run)
        known = self._entries.get(key)
        if known is not None:
            self.extend_funding(key, run.allocation.funding.funded_ms)
            if known.run is not None:
                # What an earlier agent has left on the disk is without them.
                known.run.secrets.update(run.secrets)
            return
        newest = self.newest_of(key.allocation_id)
        if newest is not None and newest.key.attempt > key.attempt:
            self.stop(key)
            return
        self._stop_older_than(key)
        entry = Entry(status=_status(key, job_pb2.ALLOCATION_STATE_STARTING), run=run)
        self._entries[key] = entry
        self._start(self._attend(entry, None))

    def extend_funding(self, key: AllocationKey, funded_ms: int) -> None:
        """So much of an attempt's time is paid for now; never less than was told before."""
        entry = self._entries.get(key)
        if entry is not None and entry.is_live:
            paid_time.extend(self._journal.log_dir(key), funded_ms)

    def stop(self, key: AllocationKey) -> None:
        """Stop an attempt, or never start it; the same again changes nothing."""
        entry = self._entries.get(key)
        if entry is None:
            self._stop_older_than(key)
            entry = Entry(status=_status(key, job_pb2.ALLOCATION_STATE_STARTING), stop_requested=True)
            self._entries[key] = entry
            self._end(entry, job_pb2.ALLOCATION_STATE_CANCELLED, "stopped before it was started")
        elif not entry.is_live:
            self._report(entry)
        elif not entry.stop_requested:
            entry.stop_requested = True
            self._journal.save(entry)
            runner = self._held_by.get(key)
            if runner is not None:
                self._start(self._stop_at(runner, key))

    def end_here(self, allocation_id: str) -> Entry | None:
        """Somebody at the site wants an allocation to end: it counts as failed. None: nothing of it runs."""
        entry = self.newest_of(allocation_id)
        if entry is None or not entry.is_live:
            return None
        entry.ended_here = True
        self.stop(entry.key)
        return entry

    async def look_after_disk(self) -> None:
        """Keep the journal whole and the logs bounded, until cancelled."""
        while True:
            await asyncio.sleep(_DISK_EVERY_S)
            self._journal.save_again()
            ended = [entry for entry in self._entries.values() if not entry.is_live]
            try:
                await asyncio.to_thread(self._journal.bound_logs, ended)
            except OSError as error:
                log.warning("logs of ended tasks are not bounded: %s", error)

    def _stop_older_than(self, key: AllocationKey) -> None:
        """Whoever speaks of an attempt has given up those before it."""
        for entry in self.live():
            if entry.key.allocation_id == key.allocation_id and entry.key.attempt < key.attempt:
                self.stop(entry.key)

    def stored(self, stored: AllocationStatusStored) -> None:
        """The coordinator will not forget this end any more: it need not be reported again."""
        entry = self._entries.get(AllocationKey(stored.allocation_id, stored.attempt))
        if entry is not None and not entry.is_live and entry.status.state == stored.state:
            entry.stored = True
            self._journal.save(entry)
            for key in self._journal.prune(self._entries.values()):
                del self._entries[key]

    async def interrupt(self) -> None:
        """The site stops: end all tasks, to be started again when it is back."""
        self._closing = True
        for entry in self.live():
            entry.interrupted, entry.held_ms = True, self._held_ms(entry)
            self._journal.save(entry)
        held = list(self._held_by.items())
        for key, runner in held:
            self._start(self._stop_at(runner, key))
        deadline_s = time.monotonic() + self._nodes.stop_grace_s + _STOP_MARGIN_S
        while self._held_by and time.monotonic() < deadline_s:  # noqa: ASYNC110 -- one look suffices
            await asyncio.sleep(0.02)
        for entry in self.live():
            # Whatever has slipped through, its runner being lost or late.
            node = self._nodes.get(_node_id(entry))
            if node is not None:
                with contextlib.suppress(NodeSilentError):
                    is_container = entry.run is not None and bool(entry.run.task_group.command.image)
                    await node.host.sweep(entry.process, entry.key, is_container)
        self.close()

    def close(self) -> None:
        """Attend to nothing any more; what runs goes on."""
        for task in self._background:
            task.cancel()

    # One attempt.

    async def _attend(self, entry: Entry, runner: RunnerHandle | None, is_adopted: bool = False) -> None:
        """See one attempt through to its end, over the loss of runners."""
        if is_adopted and runner is None:
            await self._welcomed.wait()
            if entry.runner and not await self._recover(entry, "the site went down"):
                return
        while entry.is_live and not self._closing:
            try:
                if runner is None:
                    runner = await self._begin(entry)
                    if runner is None:
                        return
                await self._follow(entry, runner)
            except (RunnerLostError, SiteRuntimeError, NodeGoneError) as error:
                log.warning("%s: %s", entry.key, error)
                lost, runner = runner, None
                self._held_by.pop(entry.key, None)
                if lost is not None:
                    self._runners.discard(lost)
                is_lost = isinstance(error, RunnerLostError)
                if not await self._recover(entry, _RUNNER_ENDED if is_lost else str(error)):
                    return

    async def _begin(self, entry: Entry) -> RunnerHandle | None:
        """Hand the attempt to a runner; None when it was stopped before."""
        assert entry.run is not None
        if missing_secrets(entry.run):
            await self._welcomed.wait()
        if missing := missing_secrets(entry.run):
            names = ", ".join(missing)
            self._end(
                entry, job_pb2.ALLOCATION_STATE_FAILED, f"the coordinator could not open secret {names}"
            )
            return None
        try:
            folder = await self._folder(entry, entry.run)
        except BundleGoneError as error:
            self._end(entry, job_pb2.ALLOCATION_STATE_FAILED, str(error))
            return None
        node = await self._nodes.find(_node_id(entry))
        runner = await self._runners.take(node.id)
        if entry.stop_requested or self._closing:
            self._runners.give_back(runner)
            if not self._closing:
                self._end(entry, job_pb2.ALLOCATION_STATE_CANCELLED, "stopped before it was started")
            return None
        if entry.held_ms:
            # The time in which the site was stopped is nobody's to pay.
            start_ms = self._clock().ToMilliseconds() - entry.held_ms
            entry.status.start_time.FromMilliseconds(start_ms)
        entry.runner, entry.interrupted, entry.held_ms = runner.name, False, 0
        # Before it is told: better look for a task in vain than have one run that nobody knows of.
        self._journal.save(entry)
        self._held_by[entry.key] = runner
        await runner.run(self._task(entry, entry.run, node, folder))
        return runner

    async def _folder(self, entry: Entry, run: RunAllocation) -> str:
        """The task's own folder, once what it wants can be had; empty where it wants none, or was stopped.

        Raises:
            BundleGoneError: it cannot be had.
        """
        delay_s = _BUNDLE_AGAIN_FIRST_S
        while not entry.stop_requested and not self._closing:
            try:
                return await self._folders.make(run)
            except BundleAwayError as error:
                entry.status.message = f"waits for its bundle: {error}"
                self._report(entry)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _BUNDLE_AGAIN_LAST_S)
        return ""

    async def _follow(self, entry: Entry, runner: RunnerHandle) -> None:
        """Report on the attempt until it has ended.

        Raises:
            RunnerLostError: the runner has gone before, or does not know it.
        """
        self._held_by[entry.key] = runner
        if entry.stop_requested:
            await runner.stop(entry.key)
        version = 0
        while entry.is_live:
            view = await runner.changed_after(entry.key, version)
            if view is None:
                raise RunnerLostError(f"{runner.name} has another task")
            version = view.version
            if entry.interrupted:
                self._note_interrupted(entry, view)
                break
            if is_terminal(view.status) and entry.run is not None:
                view.status.output_bytes, fault = await self._folders.clear(entry.run)
                view.status.message = "; ".join(part for part in (view.status.message, fault) if part)
            if entry.ended_here and is_terminal(view.status):
                _as_ended_here(view.status)
            self._take_over(entry, view)
            self._journal.save(entry)
            self._report(entry)
        del self._held_by[entry.key]
        self._runners.give_back(runner)

    async def _recover(self, entry: Entry, reason: str) -> bool:
        """What ran is lost: clear away what is left of it; whether it is to be started again."""
        is_container = entry.run is not None and bool(entry.run.task_group.command.image)
        try:
            node = await self._nodes.find(_node_id(entry))
            await node.sweep(entry.process, entry.key, is_container)
        except NodeGoneError as error:
            # Whoever keeps that node ends what is left there: see `mumian-agent node`.
            entry.status.node_lost = not entry.stop_requested
            self._end(entry, job_pb2.ALLOCATION_STATE_CANCELLED, str(error))
            return False
        entry.process, entry.runner = None, ""
        if entry.stop_requested or entry.run is None:
            self._end(entry, job_pb2.ALLOCATION_STATE_CANCELLED, "stopped as asked")
            return False
        if entry.interrupted:
            return True
        policy = RestartPolicy.of(entry.run, entry.status.restart_count)
        delay_s = policy.next_delay_s(up_s=0)
        if delay_s is None:
            self._end(entry, job_pb2.ALLOCATION_STATE_FAILED, f"lost while it ran: {reason}")
            return False
        entry.status.restart_count = policy.restart_count
        entry.status.state = job_pb2.ALLOCATION_STATE_STARTING
        entry.status.message = f"{reason}; restart {policy.restart_count}"
        entry.status.health_fault = ""
        self._journal.save(entry)
        self._report(entry)
        await asyncio.sleep(delay_s)
        return True

    def _note_interrupted(self, entry: Entry, view: TaskView) -> None:
        """Keep what it has used, not that it has ended."""
        entry.modelled_uj = view.status.it_energy_uj
        entry.status.state = job_pb2.ALLOCATION_STATE_STARTING
        entry.process, entry.runner = None, ""
        self._journal.save(entry)

    def _task(self, entry: Entry, run: RunAllocation, node: SiteNode, folder: str) -> Task:
        facts = node.facts
        return Task(
            run=run,
            host=facts.host,
            log_dir=str(self._journal.log_dir(entry.key)),
            own_folder=folder,
            engine=facts.engine,
            # The journal's folder is the agent's; on another node tasks' output lies below the same path.
            hidden=(*facts.hidden, str(self._journal.state_dir)) if facts.hidden else (),
            environment={
                **environment_of(run, facts.accelerators, self._coordinators),
                NODE_VARIABLE: str(facts.contact.parent),
            },
            core_active_power_mw=facts.core_active_power_mw,
            devices_active_power_mw=devices_active_power_mw(run, facts.accelerators),
            stop_grace_s=facts.stop_grace_s,
            contact=str(facts.contact),
            restart_count=entry.status.restart_count,
            modelled_uj=entry.modelled_uj,
            start_unix_ns=entry.status.start_time.ToNanoseconds(),
        )

    def _held_ms(self, entry: Entry) -> int:
        """How long it has been held since it first ran."""
        if not entry.status.HasField("start_time"):
            return 0
        return max(1, self._clock().ToMilliseconds() - entry.status.start_time.ToMilliseconds())

    def _take_over(self, entry: Entry, view: TaskView) -> None:
        """The task as its runner shows it, but for the energy: the runner's is the model's."""
        charged_uj = self._accounts.charged_uj(_node_id(entry), entry)
        entry.status, entry.process = view.status, view.process
        entry.modelled_uj = view.status.it_energy_uj
        entry.status.it_energy_uj = charged_uj
        if not entry.is_live:
            entry.status.it_energy_uj = self._accounts.settle(_node_id(entry), entry)

    def _end(self, entry: Entry, state: AllocationState.ValueType, message: str) -> None:
        entry.status.state, entry.status.message = state, message
        if entry.ended_here:
            _as_ended_here(entry.status)
        entry.status.it_energy_uj = self._accounts.settle(_node_id(entry), entry)
        entry.status.end_time.CopyFrom(self._clock())
        self._journal.save(entry)
        self._report(entry)

    def _report(self, entry: Entry) -> None:
        report = AgentReport(allocation_status=entry.status)
        self._reports.put(entry.key, report)

    async def _stop_at(self, runner: RunnerHandle, key: AllocationKey) -> None:
        try:
            await runner.stop(key)
        except RunnerLostError as error:
            log.warning("%s: %s", key, error)  # whoever follows it sees the loss as well

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("defect", exc_info=error)


def _as_ended_here(status: AllocationStatus) -> None:
    """To its job a task that was ended at its site has failed: nobody who may has cancelled it."""
    if status.state == job_pb2.ALLOCATION_STATE_CANCELLED:
        status.state = job_pb2.ALLOCATION_STATE_FAILED
        status.message = "ended at its site, by `mumian-agent cancel`"


def _node_id(entry: Entry) -> str:
    return entry.run.allocation.node_id if entry.run is not None else ""


def _status(key: AllocationKey, state: AllocationState.ValueType) -> AllocationStatus:
    return AllocationStatus(allocation_id=key.allocation_id, attempt=key.attempt, state=state)
