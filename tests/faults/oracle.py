"""Says after a round whether what is always true still was. It reads the public API, etcd, and the history of
what was acknowledged and started; it knows nothing of what was done to the coordinators.

Of the design's section 8 it checks 1, 2, 5, 6 and 7. Money (3, 4) is not there yet; 8 needs a second tenant;
9, the verifier, judges each plan before its commit, and 5 judges here what came of it, by other means.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import mumian
from mumian.api.v1.job_pb2 import Job
from mumian.calls import TERMINAL_STATES
from mumian.errors import MumianError
from mumian_orchestrator.domain.job_events import replay, without
from mumian_orchestrator.domain.job_state import TERMINAL_JOB_STATES
from mumian_orchestrator.ports.key_value import KeyEvent, KeyValue, NoAnswerError
from mumian_orchestrator.services.leadership import leader_key

from tests.faults.coordinators import KEY_PREFIX
from tests.faults.history import History

_ENDS_WITHIN_S = 60.0


@dataclass(slots=True)
class Verdict:
    """What was wrong; nothing, if all is well."""

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.twice or self.broken)

    def __str__(self) -> str:
        named = (("lost", self.lost), ("twice", self.twice), ("broken", self.broken))
        return "\n".join(f"{kind}: {each}" for kind, all_of_it in named for each in all_of_it)


class Oracle:
    """Judges rounds of one run, each by its jobs: their names begin with the round's."""

    def __init__(self, history: History, client: mumian.AsyncClient, kv: KeyValue) -> None:
        self._history, self._client, self._kv = history, client, kv

    async def judge(self, round_name: str) -> Verdict:
        """Of a round whose faults are over and whose coordinators are back."""
        verdict = Verdict()
        acknowledged = {
            event["job"]: event["name"]
            for event in self._history.of("acknowledged")
            if event["name"].startswith(f"{round_name}-")
        }
        jobs = await asyncio.gather(*(self._ended(job_id, verdict) for job_id in acknowledged))
        await self._check_names(round_name, acknowledged, verdict)
        self._check_starts(round_name, verdict)
        for job in jobs:
            if job is not None:
                await self._check_events(job, verdict)
        await self._check_room([job for job in jobs if job is not None], verdict)
        await self._check_writers(verdict)
        return verdict

    async def _ended(self, job_id: str, verdict: Verdict) -> Job | None:
        """1: an acknowledged job exists and ends. 2: as it was seen to end."""
        try:
            job = await self._client.wait(job_id, timeout_s=_ENDS_WITHIN_S)
        except MumianError as error:
            verdict.lost.append(f"{job_id}: {error}")
            return None
        except TimeoutError:
            verdict.lost.append(f"{job_id} has not ended: {await self._client.get(job_id)}")
            return None
        seen = {event["state"] for event in self._history.of("ended") if event["job"] == job_id}
        if seen - {job.state}:
            verdict.broken.append(f"{job_id} ended as {seen}, and now is {job.state}")
        return job

    async def _check_names(self, round_name: str, acknowledged: dict[str, str], verdict: Verdict) -> None:
        """1: what was asked for once, however often it was repeated, is there once."""
        names = Counter(
            [job.spec.name async for job in self._client.list() if job.spec.name.startswith(f"{round_name}-")]
        )
        verdict.twice += [f"{name} is there {count} times" for name, count in names.items() if count > 1]
        for name, count in Counter(acknowledged.values()).items():
            if count > 1:
                verdict.twice.append(f"{name} was acknowledged as {count} jobs")

    def _check_starts(self, round_name: str, verdict: Verdict) -> None:
        """2: no site was away for as long as contracts say, so each task was started once."""
        starts = Counter(
            event["allocation"]
            for event in self._history.of("started")
            if event["allocation"].startswith(f"{round_name}-")
        )
        # ID.GROUP.INDEX, and a number from the second allocation of a task on.
        tasks = Counter(".".join(allocation_id.split(".")[:3]) for allocation_id in starts.elements())
        verdict.twice += [f"{task} was started {count} times" for task, count in tasks.items() if count > 1]

    async def _check_events(self, job: Job, verdict: Verdict) -> None:
        """7: the events give the stored job. 2: none follows that changes a terminal state."""
        events = [event async for event in self._client.events(job.id)]
        if replay(events) != without(job, "explanations"):
            verdict.broken.append(f"{job.id}: its events tell of another job:\n{replay(events)}\n{job}")
        states = [event.job.state for event in events]
        ends = [state for state in states if state in TERMINAL_JOB_STATES]
        if len(set(ends)) > 1 or (ends and states[-1] not in TERMINAL_STATES):
            verdict.broken.append(f"{job.id}: its states were {states}")

    async def _check_room(self, jobs: Sequence[Job], verdict: Verdict) -> None:
        """5: at no time did more run on a node than it has."""
        capacity = {node.id: node.cpu_milli async for node in self._client.nodes()}
        changes: dict[str, list[tuple[int, int]]] = {node_id: [] for node_id in capacity}
        for allocation in (allocation for job in jobs for allocation in job.allocations):
            if allocation.HasField("start_time") and allocation.HasField("end_time"):
                cpu_milli, on_node = allocation.resources.cpu_milli, changes[allocation.node_id]
                on_node.append((allocation.start_time.ToNanoseconds(), cpu_milli))
                on_node.append((allocation.end_time.ToNanoseconds(), -cpu_milli))
        for node_id, of_node in changes.items():
            used = 0
            for _, change in sorted(of_node):
                used += change
                if used > capacity[node_id]:
                    verdict.broken.append(f"{used} mCPU ran on {node_id}, which has {capacity[node_id]}")
                    break

    async def _check_writers(self, verdict: Verdict) -> None:
        """6: every commit was made by the one that led then, in order, none left out."""
        leader, mark = leader_key(KEY_PREFIX), f"{KEY_PREFIX}commit"
        elections = [event for event in await self._all_events(leader) if event.key == leader]
        commits = await self._all_events(mark)
        previous = (0, 0)
        for commit in commits:
            assert commit.value is not None
            term, number = map(int, commit.value.decode().split("/"))
            reigning = [event for event in elections if event.revision < commit.revision]
            if not reigning or reigning[-1].value is None or reigning[-1].revision != term:
                verdict.broken.append(f"term {term} wrote at revision {commit.revision}, and did not lead")
            if (term, number) != (previous[0], previous[1] + 1) and not (term > previous[0] and number == 1):
                verdict.broken.append(f"commit {term}/{number} came after {previous[0]}/{previous[1]}")
            previous = (term, number)

    async def _all_events(self, key: str) -> list[KeyEvent]:
        """Everything that ever happened to a key, by its history."""
        while True:
            try:
                newest = max((entry.mod_revision for entry in (await self._kv.list(key)).entries), default=0)
                found: list[KeyEvent] = []
                watched: AsyncGenerator[Sequence[KeyEvent], None] = self._kv.watch(key, 1)
                async with asyncio.timeout(10), aclosing(watched) as answers:
                    async for events in answers:
                        found += events
                        if found[-1].revision >= newest:
                            return found
            except (NoAnswerError, TimeoutError):
                await asyncio.sleep(0.1)
            if not newest:
                return []
