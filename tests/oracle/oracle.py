"""Says after a round whether what is always true still was. It reads the public API, the history of the
store, and the history of what was acknowledged, asked for, started and stopped; it knows nothing of what was
done to the platform. The same oracle judges real processes (`tests/faults`) and simulations (`tests/sim`).

It checks all of the design's section 8.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mumian.api.v1 import job_pb2
from mumian.api.v1.fleet_pb2 import Node
from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian_orchestrator.domain.job_events import replay, without
from mumian_orchestrator.domain.job_state import TERMINAL_JOB_STATES
from mumian_orchestrator.domain.money.ledger import LEDGER, LedgerError
from mumian_orchestrator.domain.money.ledger_audit import audit_of
from mumian_orchestrator.ports.key_value import KeyEvent
from mumian_orchestrator.services.leadership import leader_key

from tests.oracle.history import History
from tests.oracle.stored_plans import StoredPlans

SUCCEEDED, FAILED = job_pb2.ALLOCATION_STATE_SUCCEEDED, job_pb2.ALLOCATION_STATE_FAILED
STARTING, RUNNING = job_pb2.ALLOCATION_STATE_STARTING, job_pb2.ALLOCATION_STATE_RUNNING


class Platform(Protocol):
    """What is asked of the platform, by a tenant who may see all jobs of the round."""

    async def ended(self, job_id: str) -> Job:
        """The job once it has ended.

        Raises:
            LookupError: it is not there.
            TimeoutError: it does not end.
        """

    async def jobs(self) -> Sequence[Job]:
        """All jobs."""

    async def events(self, job_id: str) -> Sequence[JobEvent]:
        """What the platform tells of a job, oldest first."""

    async def nodes(self) -> Sequence[Node]:
        """All nodes."""

    async def seen_by_a_stranger(self, job_ids: Sequence[str]) -> Sequence[str]:
        """Those of the jobs that a tenant gets to see who owns none of them."""

    async def history_of(self, prefix: str) -> Sequence[KeyEvent]:
        """Everything that ever happened to the keys below a prefix of the store."""


@dataclass(slots=True)
class Verdict:
    """What was wrong; nothing, if all is well."""

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing was."""
        return not (self.lost or self.twice or self.broken)

    def __str__(self) -> str:
        named = (("lost", self.lost), ("twice", self.twice), ("broken", self.broken))
        return "\n".join(f"{kind}: {each}" for kind, all_of_it in named for each in all_of_it)


class Oracle:
    """Judges rounds of one run, each by its jobs: their names begin with the round's."""

    def __init__(self, history: History, platform: Platform, key_prefix: str) -> None:
        self._history, self._platform, self._prefix = history, platform, key_prefix

    async def judge(self, round_name: str) -> Verdict:
        """Of a round whose faults are over and whose coordinators are back."""
        verdict = Verdict()
        acknowledged = {
            event["job"]: event["name"]
            for event in self._history.of("acknowledged")
            if event["name"].startswith(f"{round_name}-")
        }
        found = await asyncio.gather(*(self._ended(job_id, verdict) for job_id in acknowledged))
        jobs = [job for job in found if job is not None]
        await self._check_names(round_name, acknowledged, verdict)
        events = {job.id: await self._platform.events(job.id) for job in jobs}
        self._check_starts(round_name, jobs, events, verdict)
        for job in jobs:
            self._check_end(job, verdict)
            self._check_events(job, events[job.id], verdict)
        await self._check_room(verdict)
        await self._check_writers(verdict)
        await self._check_stored_plans(verdict)
        await self._check_money(jobs, verdict)
        for job_id in await self._platform.seen_by_a_stranger([job.id for job in jobs]):
            verdict.broken.append(f"{job_id} is shown to another tenant")
        return verdict

    async def _ended(self, job_id: str, verdict: Verdict) -> Job | None:
        """1: an acknowledged job exists and ends. 2: as it was seen to end."""
        try:
            job = await self._platform.ended(job_id)
        except LookupError as error:
            verdict.lost.append(f"{job_id}: {error}")
            return None
        except TimeoutError as error:
            verdict.lost.append(f"{job_id} has not ended: {error}")
            return None
        seen = {event["state"] for event in self._history.of("ended") if event["job"] == job_id}
        if seen - {job.state}:
            verdict.broken.append(f"{job_id} ended as {seen}, and now is {job.state}")
        return job

    async def _check_names(self, round_name: str, acknowledged: dict[str, str], verdict: Verdict) -> None:
        """1: what was asked for once, however often it was repeated, is there once."""
        jobs = await self._platform.jobs()
        names = Counter(job.spec.name for job in jobs if job.spec.name.startswith(f"{round_name}-"))
        verdict.twice += [f"{name} is there {count} times" for name, count in names.items() if count > 1]
        for name, count in Counter(acknowledged.values()).items():
            if count > 1:
                verdict.twice.append(f"{name} was acknowledged as {count} jobs")

    def _check_starts(
        self,
        round_name: str,
        jobs: Sequence[Job],
        events: Mapping[str, Sequence[JobEvent]],
        verdict: Verdict,
    ) -> None:
        """2: no attempt was started twice but by a node that had gone down; a task had a second allocation
        only where the first was set aside; one that runs at most once never ran twice at a time.
        """
        runs: dict[str, list[_Run]] = defaultdict(list)
        for run in self._runs():
            if run.allocation.startswith(f"{round_name}-"):
                runs[run.allocation].append(run)
        for allocation_id, of_it in runs.items():
            if any(run.end_state != "LOST" for run in of_it[:-1]):
                verdict.twice.append(f"{allocation_id} was started {len(of_it)} times")
        for job in jobs:
            of_task: dict[tuple[str, int], list[Allocation]] = defaultdict(list)
            for allocation in job.allocations:
                of_task[allocation.task_group, allocation.task_index].append(allocation)
            known = {allocation.id for allocation in job.allocations}
            told = [allocation for event in events[job.id] for allocation in event.job.allocations]
            set_aside = {allocation.id for allocation in told if _is_set_aside(allocation)}
            strangers = [each for each in runs if each.split(".")[0] == job.id and each not in known]
            verdict.broken += [f"{each} was started, and its job does not know it" for each in strangers]
            for (group, index), allocations in of_task.items():
                task = f"{job.id}.{group}.{index}"
                standing = [a for a in allocations if a.id not in set_aside]
                if len([a for a in standing if a.id in runs]) > 1:
                    verdict.twice.append(f"{task} was started as each of {[a.id for a in standing]}")
                accepted = [a for a in allocations if a.state == SUCCEEDED and not _is_set_aside(a)]
                if len(accepted) > 1:
                    verdict.twice.append(f"{task} was accepted more than once")
                if job.spec.at_most_once:
                    spans = sorted((run.begin_s, run.end_s) for a in allocations for run in runs[a.id])
                    for (_, end_s), (begin_s, _) in itertools.pairwise(spans):
                        if begin_s < end_s:
                            verdict.twice.append(f"{task} ran twice at {begin_s} s, and must not")

    def _check_end(self, job: Job, verdict: Verdict) -> None:
        """1: it ended as its tenant and its tasks would have it. What is told of a task is what it did."""
        cancelled = any(event["job"] == job.id for event in self._history.of("cancel"))
        if job.state == job_pb2.JOB_STATE_CANCELLED and not cancelled:
            verdict.broken.append(f"{job.id} was cancelled, and nobody had asked for it")
        did = defaultdict(set)
        for run in self._runs():
            did[run.allocation].add(run.end_state)
        for allocation in job.allocations:
            if allocation.state == SUCCEEDED and "SUCCEEDED" not in did[allocation.id]:
                verdict.broken.append(
                    f"{allocation.id} is told to have succeeded, and did {did[allocation.id]}"
                )
        if job.state == job_pb2.JOB_STATE_SUCCEEDED:
            ended = {(a.task_group, a.task_index) for a in job.allocations if a.state == SUCCEEDED}
            for group in job.spec.task_groups:
                for index in range(group.count):
                    if (group.name, index) not in ended:
                        verdict.broken.append(f"{job.id} succeeded without {group.name}.{index}")
        if job.state == job_pb2.JOB_STATE_FAILED:
            failed = [a for a in job.allocations if a.state == FAILED]
            if not any(did[a.id] & {"FAILED", "LOST"} for a in failed):
                verdict.broken.append(f"{job.id} failed ({job.state_message}), and none of its tasks did")

    def _check_events(self, job: Job, events: Sequence[JobEvent], verdict: Verdict) -> None:
        """7: the events give the stored job. 2: none follows that changes a terminal state.
        What arrives late does not set a task back.
        """
        if replay(events) != without(job, "explanations"):
            verdict.broken.append(f"{job.id}: its events tell of another job:\n{replay(events)}\n{job}")
        states = [event.job.state for event in events]
        ends = [state for state in states if state in TERMINAL_JOB_STATES]
        if len(set(ends)) > 1 or (ends and states[-1] not in TERMINAL_JOB_STATES):
            verdict.broken.append(f"{job.id}: its states were {states}")
        verdict.broken += self._stepped_back(events)

    def _stepped_back(self, events: Sequence[JobEvent]) -> Iterable[str]:
        """The allocations that were told to be younger than before, more often than their node went down."""
        newest: dict[str, tuple[int, int]] = {}
        steps: Counter[str] = Counter()
        went_down = Counter(run.allocation for run in self._runs() if run.end_state == "LOST")
        for event in events:
            for allocation in event.job.allocations:
                if allocation.state in (STARTING, RUNNING):
                    age = (allocation.restart_count, allocation.state)
                    steps[allocation.id] += age < newest.get(allocation.id, age)
                    newest[allocation.id] = age
        for allocation_id, count in steps.items():
            if count > went_down[allocation_id]:
                yield f"{allocation_id} was told {count} times to be younger than before"

    async def _check_room(self, verdict: Verdict) -> None:
        """5: at no time did more run on a node than it has."""
        capacity = {node.id: node.cpu_milli for node in await self._platform.nodes()}
        changes: dict[str, list[tuple[float, int]]] = {node_id: [] for node_id in capacity}
        for run in self._runs():
            changes[run.node] += [(run.begin_s, run.cpu_milli), (run.end_s, -run.cpu_milli)]
        for node_id, of_node in changes.items():
            used = 0
            for at_s, change in sorted(of_node):
                used += change
                if used > capacity[node_id]:
                    verdict.broken.append(
                        f"{used} mCPU ran on {node_id} at {at_s} s, which has {capacity[node_id]}"
                    )
                    break

    async def _check_writers(self, verdict: Verdict) -> None:
        """6: every commit was made by the one that led then, in order, none left out."""
        leader, mark = leader_key(self._prefix), f"{self._prefix}commit"
        elections = [event for event in await self._platform.history_of(leader) if event.key == leader]
        previous = (0, 0)
        for commit in await self._platform.history_of(mark):
            assert commit.value is not None
            term, number = map(int, commit.value.decode().split("/"))
            reigning = [event for event in elections if event.revision < commit.revision]
            if not reigning or reigning[-1].value is None or reigning[-1].revision != term:
                verdict.broken.append(f"term {term} wrote at revision {commit.revision}, and did not lead")
            if (term, number) != (previous[0], previous[1] + 1) and not (term > previous[0] and number == 1):
                verdict.broken.append(f"commit {term}/{number} came after {previous[0]}/{previous[1]}")
            previous = (term, number)

    async def _check_stored_plans(self, verdict: Verdict) -> None:
        """9: what was committed passes the verifier, commit by commit. 2: no terminal state ever changes."""
        stored = StoredPlans(await self._platform.nodes())
        data = f"{self._prefix}data/"
        for event in await self._platform.history_of(data):
            stored.happened(event.key.removeprefix(data), event.value, event.revision)
        verdict.broken += stored.faults()

    async def _check_money(self, jobs: Sequence[Job], verdict: Verdict) -> None:
        """3: the ledger replays to the stored funds, none was ever below zero, what is reserved is held for
        what has not ended. 4: each posting has one attempt, and each metered attempt its posting.
        """
        stored: dict[str, bytes] = {}
        data = f"{self._prefix}data/"
        for prefix in (data, f"{self._prefix}{LEDGER.pages}"):
            for event in await self._platform.history_of(prefix):
                key = event.key.removeprefix(data if prefix == data else self._prefix)
                if event.value is None:
                    stored.pop(key, None)
                else:
                    stored[key] = event.value
        try:
            audit_of(stored)
        except LedgerError as error:
            verdict.broken.append(f"the ledger is wrong: {error}")
        for allocation in (allocation for job in jobs for allocation in job.allocations):
            if allocation.HasField("receipt") and not allocation.receipt.ledger_sequence:
                verdict.broken.append(f"{allocation.id} has a receipt that was never posted")
            if allocation.funding.holds and not allocation.funding.settled:
                verdict.broken.append(f"money is still held for {allocation.id}, which has ended")

    def _runs(self) -> Iterable[_Run]:
        """What runners have run, in the order of their starts."""
        stops: dict[tuple[str, str], dict[str, Any]] = {
            (event["runner"], event["allocation"]): event for event in self._history.of("stopped")
        }
        for event in self._history.of("started"):
            stop = stops.get((event["runner"], event["allocation"]))
            yield _Run(
                event["allocation"],
                event["node"],
                event["cpu_milli"],
                event["s"],
                stop["s"] if stop else float("inf"),
                stop["state"] if stop else "",
            )


@dataclass(frozen=True, slots=True)
class _Run:
    """One start of one attempt, and its end."""

    allocation: str
    node: str
    cpu_milli: int
    begin_s: float
    end_s: float
    end_state: str  # of AllocationState; LOST when its node went down; empty: it runs


def _is_set_aside(allocation: Allocation) -> bool:
    """Whether another has, or may have, its task."""
    gave_way = allocation.evicted or allocation.moved or allocation.superseded
    return gave_way or allocation.state == job_pb2.ALLOCATION_STATE_LOST
