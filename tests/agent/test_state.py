"""What is on the agent's disk, and what it is told by a coordinator, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from mumian.agent.v1.agent_pb2 import AgentReport, AllocationStatusStored, RunAllocation
from mumian.api.v1 import job_pb2
from mumian_agent.adapters.grpc.coordinator_stream import Outbox
from mumian_agent.agent import allocations
from mumian_agent.agent.allocations import Allocations
from mumian_agent.agent.ports import RunnerHandle, RunnerLostError
from mumian_agent.domain.allocation import AllocationKey, key_of
from mumian_agent.runtime.identity import Identity, StateInUseError
from mumian_agent.runtime.journal import Journal
from mumian_agent.runtime.supervisor import Supervisor
from mumian_agent.runtime.task import Task, TaskView

from tests.agent.bundles import GivenBundles, folders_of
from tests.agent.one_node import accounts, one_node
from tests.agent.scripted_coordinator import run_of

RUNNING, SUCCEEDED = job_pb2.ALLOCATION_STATE_RUNNING, job_pb2.ALLOCATION_STATE_SUCCEEDED
FAILED, CANCELLED = job_pb2.ALLOCATION_STATE_FAILED, job_pb2.ALLOCATION_STATE_CANCELLED


class LocalRunner:
    """A runner in this process: a supervisor without an actor around it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks: list[Task] = []
        self.supervisor: Supervisor | None = None
        self.is_lost = asyncio.Event()

    async def run(self, task: Task) -> TaskView:
        self.tasks.append(task)
        self.supervisor = Supervisor(task)
        self._running = asyncio.create_task(self.supervisor.run())
        return self.supervisor.view()

    async def changed_after(self, key: AllocationKey, version: int) -> TaskView | None:
        if self.supervisor is None or self.tasks[-1].key != key:
            return None
        lost = asyncio.create_task(self.is_lost.wait())
        changed = asyncio.create_task(self.supervisor.changed_after(version))
        await asyncio.wait({lost, changed}, return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            changed.cancel()
            raise RunnerLostError(self.name)
        lost.cancel()
        return changed.result()

    async def stop(self, key: AllocationKey) -> None:
        if self.supervisor is not None:
            self.supervisor.stop()


class LocalRunners:
    """As many as are asked for."""

    def __init__(self) -> None:
        self.all: dict[str, LocalRunner] = {}

    async def open(self, in_use: Iterable[str]) -> None:
        pass

    async def warm_up(self, node_ids: Iterable[str]) -> None:
        pass

    async def take(self, node_id: str) -> RunnerHandle:
        runner = LocalRunner(f"runner-{len(self.all)}")
        self.all[runner.name] = runner
        return runner

    def find(self, name: str) -> RunnerHandle | None:
        return self.all.get(name)

    def give_back(self, runner: RunnerHandle) -> None:
        pass

    def discard(self, runner: RunnerHandle) -> None:
        del self.all[runner.name]

    def starts(self) -> int:
        """How often something was started."""
        return sum(len(runner.tasks) for runner in self.all.values())


class Site:
    """The allocations of an agent on a state folder, with its runners, which outlive it."""

    def __init__(
        self,
        folder: Path,
        runners: LocalRunners | None = None,
        source: GivenBundles | None = None,
        clock: Callable[[], Timestamp] = allocations.now,
    ) -> None:
        self.runners = runners or LocalRunners()
        self.outbox = Outbox()
        self.outbox.open()
        self.journal = Journal(folder)
        self.allocations = Allocations(
            *(self.journal, self.runners, self.outbox, one_node(), accounts()),
            folders_of(folder, source),
            clock=clock,
        )

    def state(self, run: RunAllocation) -> job_pb2.AllocationState.ValueType:
        entry = self.allocations.newest_of(run.allocation.id)
        assert entry is not None
        return entry.status.state

    async def until(self, run: RunAllocation, state: job_pb2.AllocationState.ValueType) -> None:
        async with asyncio.timeout(120):
            while self.state(run) != state:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


def stored(run: RunAllocation, state: job_pb2.AllocationState.ValueType) -> AllocationStatusStored:
    return AllocationStatusStored(
        allocation_id=run.allocation.id, attempt=run.allocation.attempt, state=state
    )


def test_the_epoch_grows_with_every_start_and_a_state_folder_has_one_agent(tmp_path: Path) -> None:
    first = Identity(tmp_path)
    with pytest.raises(StateInUseError, match="in use by another agent"):
        Identity(tmp_path)
    epoch = first.agent_epoch
    del first
    assert Identity(tmp_path).agent_epoch == epoch + 1


def test_the_highest_term_is_obeyed_and_older_ones_not_even_after_a_restart(tmp_path: Path) -> None:
    identity = Identity(tmp_path)
    assert [identity.obeys(term) for term in (5, 4, 5, 7, 5)] == [True, False, True, True, False]
    del identity
    assert not Identity(tmp_path).obeys(6)


async def test_a_repeated_run_starts_once(tmp_path: Path) -> None:
    site, run = Site(tmp_path), run_of("dup.main.0", "sleep", "0.1")
    for _ in range(3):
        site.allocations.run(run)
    await site.until(run, SUCCEEDED)
    site.allocations.run(run)
    await asyncio.sleep(0.05)
    assert site.runners.starts() == 1


async def test_a_stop_before_the_run_leaves_a_tombstone(tmp_path: Path) -> None:
    site, run = Site(tmp_path), run_of("tomb.main.0", "true")
    site.allocations.stop(AllocationKey("tomb.main.0", 1))
    site.allocations.run(run)
    await asyncio.sleep(0.05)
    assert (site.state(run), site.runners.starts()) == (CANCELLED, 0)
    report: AgentReport = await site.outbox.next()
    assert report.allocation_status.state == CANCELLED
    assert Site(tmp_path).state(run) == CANCELLED


async def test_an_end_is_told_until_it_is_stored_over_restarts(tmp_path: Path) -> None:
    site, run = Site(tmp_path), run_of("told.main.0", "true")
    site.allocations.run(run)
    await site.until(run, SUCCEEDED)
    site.allocations.stored(stored(run, RUNNING))
    again = Site(tmp_path)
    assert [status.state for status in again.allocations.statuses()] == [SUCCEEDED]
    again.allocations.stored(stored(run, SUCCEEDED))
    assert again.allocations.statuses() == []
    last = Site(tmp_path)
    last.allocations.run(run)
    await asyncio.sleep(0.05)
    assert (last.allocations.statuses(), last.runners.starts()) == ([], 0)


async def test_a_welcome_starts_what_is_missing_and_stops_what_is_too_much(tmp_path: Path) -> None:
    site = Site(tmp_path)
    kept, extra, missing = (run_of(f"{name}.main.0", "sleep", "100") for name in ("kept", "extra", "missing"))
    for run in (kept, extra):
        site.allocations.run(run)
        await site.until(run, RUNNING)
    site.allocations.welcome([kept, missing])
    await site.until(extra, CANCELLED)
    await site.until(missing, RUNNING)
    assert (site.state(kept), site.runners.starts()) == (RUNNING, 3)
    await site.allocations.interrupt()


async def test_a_new_agent_adopts_what_runs_and_starts_nothing_again(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    site = Site(tmp_path)
    run = run_of("adopted.main.0", "sh", "-c", f"until [ -e {mark} ]; do sleep 0.05; done")
    site.allocations.run(run)
    await site.until(run, RUNNING)
    site.allocations.close()
    after = Site(tmp_path, site.runners)
    assert after.allocations.runners_in_use() == {"runner-0"}
    after.allocations.adopt()
    mark.touch()
    await after.until(run, SUCCEEDED)
    assert site.runners.starts() == 1


async def test_what_was_interrupted_by_a_stop_of_the_site_is_started_again_when_it_is_wanted(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    wanted, unwanted = (run_of(f"{name}.main.0", "sleep", "100") for name in ("wanted", "unwanted"))
    for run in (wanted, unwanted):
        site.allocations.run(run)
        await site.until(run, RUNNING)
    await site.allocations.interrupt()
    after = Site(tmp_path)
    after.allocations.adopt()
    await asyncio.sleep(0.05)
    assert after.runners.starts() == 0
    after.allocations.welcome([wanted])
    await after.until(wanted, RUNNING)
    await after.until(unwanted, CANCELLED)
    assert next(s for s in after.allocations.statuses() if s.state == RUNNING).restart_count == 0
    await after.allocations.interrupt()


def assert_no_file_but_logs_holds(value: bytes, folder: Path) -> None:
    logs = set(folder.glob("logs/**/*"))
    others = [path for path in folder.rglob("*") if path.is_file() and path not in logs]
    assert others and not any(value in path.read_bytes() for path in others)


async def test_secrets_reach_the_task_and_never_the_disk_and_come_again_with_the_welcome(
    tmp_path: Path,
) -> None:
    command = job_pb2.Command(argv=["sh", "-c", 'echo "$PASSWORD"; sleep 60'], secrets={"PASSWORD": "db"})
    run = run_of("job-1.main.0", command=command)
    run.secrets["PASSWORD"] = "horse-battery"
    site = Site(tmp_path)
    site.allocations.run(run)
    await site.until(run, RUNNING)
    [runner] = site.runners.all.values()
    assert runner.tasks[0].environment["PASSWORD"] == "horse-battery"
    # The agent and its runners go down at once; the next agent has only what is on the disk.
    await site.allocations.interrupt()
    assert_no_file_but_logs_holds(b"horse-battery", tmp_path)
    after = Site(tmp_path)
    after.allocations.adopt()
    await asyncio.sleep(0.05)
    assert after.runners.starts() == 0
    after.allocations.welcome([run])
    await after.until(run, RUNNING)
    [runner] = after.runners.all.values()
    assert runner.tasks[0].environment["PASSWORD"] == "horse-battery"
    await after.allocations.interrupt()


async def test_a_task_whose_secret_could_not_be_opened_is_not_started_without_it(tmp_path: Path) -> None:
    command = job_pb2.Command(argv=["true"], secrets={"PASSWORD": "db"})
    run = run_of("job-1.main.0", command=command)
    site = Site(tmp_path)
    site.allocations.welcome([run])
    await site.until(run, FAILED)
    assert site.runners.starts() == 0
    entry = site.allocations.newest_of(run.allocation.id)
    assert entry is not None and entry.status.message == "the coordinator could not open secret db"


@pytest.mark.parametrize(("max_restarts", "state"), [(0, FAILED), (1, RUNNING)])
async def test_a_task_whose_runner_is_lost_is_a_failed_run(
    tmp_path: Path, max_restarts: int, state: job_pb2.AllocationState.ValueType
) -> None:
    site, run = Site(tmp_path), run_of("lost.main.0", "sleep", "100", max_restarts=max_restarts)
    site.allocations.run(run)
    await site.until(run, RUNNING)
    site.runners.all["runner-0"].is_lost.set()
    async with asyncio.timeout(120):
        while "runner-0" in site.runners.all or site.state(run) != state:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await site.allocations.interrupt()


async def test_over_a_lost_runner_an_attempt_goes_on_from_when_it_first_ran(tmp_path: Path) -> None:
    site, run = Site(tmp_path), run_of("a.main.0", "sleep", "100", max_restarts=1)
    site.allocations.run(run)
    await site.until(run, RUNNING)
    first_ns = start_ns(site, run)
    [runner] = site.runners.all.values()
    runner.is_lost.set()
    async with asyncio.timeout(120):
        while runner in site.runners.all.values() or site.state(run) != RUNNING:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert start_ns(site, run) == first_ns, "its receipt counts from here"
    site.allocations.stop(key_of(run))
    await site.until(run, CANCELLED)
    assert start_ns(site, run) == first_ns


async def test_the_time_in_which_a_site_was_stopped_is_not_charged(tmp_path: Path) -> None:
    now_s = [1_800_000_000]

    def clock() -> Timestamp:
        return Timestamp(seconds=now_s[0])

    site, run = Site(tmp_path, clock=clock), run_of("a.main.0", "sleep", "100")
    site.allocations.run(run)
    await site.until(run, RUNNING)
    entry = site.allocations.newest_of("a.main.0")
    assert entry is not None
    now_s[0] = entry.status.start_time.seconds + 60
    await site.allocations.interrupt()
    now_s[0] += 3600
    again = Site(tmp_path, clock=clock)
    again.allocations.adopt()
    again.allocations.welcome([run])
    await again.until(run, RUNNING)
    held_s = now_s[0] - start_ns(again, run) / 1e9
    assert 59 <= held_s <= 60
    again.allocations.stop(key_of(run))
    await again.until(run, CANCELLED)


def start_ns(site: Site, run: RunAllocation) -> int:
    entry = site.allocations.newest_of(run.allocation.id)
    assert entry is not None
    return entry.status.start_time.ToNanoseconds()


async def test_a_newer_attempt_takes_the_place_of_the_older(tmp_path: Path) -> None:
    site = Site(tmp_path)
    older, newer = (run_of("twice.main.0", "sleep", "100", attempt=attempt) for attempt in (1, 2))
    site.allocations.run(older)
    await site.until(older, RUNNING)
    site.allocations.run(newer)
    async with asyncio.timeout(120):
        while {s.attempt: s.state for s in site.allocations.statuses()} != {1: CANCELLED, 2: RUNNING}:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await site.allocations.interrupt()


async def test_an_unreadable_journal_entry_is_set_aside(tmp_path: Path) -> None:
    site, run = Site(tmp_path), run_of("bad.main.0", "true")
    site.allocations.run(run)
    await site.until(run, SUCCEEDED)
    [path] = (tmp_path / "allocations").glob("*.json")
    path.write_text("{")
    assert Site(tmp_path).allocations.statuses() == []
    assert path.with_suffix(".bad").exists()


async def test_reports_of_one_slot_replace_one_another_and_logs_wait_their_turn() -> None:
    outbox = Outbox()
    outbox.put("a", AgentReport(sequence=9))  # before the stream: dropped
    outbox.open()
    assert await outbox.put_log(AgentReport(sequence=3))
    outbox.put("a", AgentReport(sequence=1))
    outbox.put("a", AgentReport(sequence=2))
    assert [(await outbox.next()).sequence for _ in range(2)] == [2, 3]


async def test_a_log_read_waits_for_the_stream_and_ends_with_it() -> None:
    outbox = Outbox()
    outbox.open()

    async def pour() -> int:
        count = 0
        while await outbox.put_log(AgentReport()):
            count += 1
        return count

    pouring = asyncio.create_task(pour())
    await asyncio.sleep(0.05)
    assert not pouring.done()
    await outbox.close()
    assert 0 < await pouring < 100


async def test_a_hello_has_all_that_runs_and_leaves_ends_for_later_when_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    live = run_of("live.main.0", "sleep", "100")
    for number in range(5):
        site.allocations.stop(AllocationKey(f"ended-{number}.main.0", 1))
    site.allocations.run(live)
    await site.until(live, RUNNING)
    monkeypatch.setattr(allocations, "HELLO_STATUSES_BYTES_MAX", 150)
    told = [status.allocation_id for status in site.allocations.statuses()]
    assert told[0] == "live.main.0"
    assert 1 < len(told) < 6
    site.outbox.open()  # a new stream
    site.allocations.welcome([live])
    later = {(await site.outbox.next()).allocation_status.allocation_id for _ in range(6 - len(told))}
    assert later.isdisjoint(told)
    assert len(later) + len(told) == 6
    await site.allocations.interrupt()


async def test_what_cannot_be_saved_is_saved_when_there_is_room_again_and_the_task_goes_on(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    run = run_of("full.main.0", "sleep", "0.2")
    entries, away = tmp_path / "allocations", tmp_path / "away"
    entries.rename(away)  # whatever is written there fails, as on a full disk
    site.allocations.run(run)
    await site.until(run, SUCCEEDED)
    away.rename(entries)
    site.journal.save_again()
    [entry] = Journal(tmp_path).load()
    assert entry.status.state == SUCCEEDED


async def test_the_logs_of_what_ended_first_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    monkeypatch.setattr("mumian_agent.runtime.journal._LOGS_BYTES_MAX", 2500)
    for number in range(4):
        run = run_of(f"log-{number}.main.0", "sh", "-c", "head -c 1000 /dev/zero")
        site.allocations.run(run)
        await site.until(run, SUCCEEDED)
    site.journal.bound_logs(entry for entry in site.allocations.all())
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [
        "a-log-2.main.0@1",
        "a-log-3.main.0@1",
    ]


async def test_what_is_ended_at_the_site_has_failed_to_its_job_also_when_the_agent_is_killed_meanwhile(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    run = run_of("here.main.0", "sleep", "100")
    site.allocations.run(run)
    await site.until(run, RUNNING)
    site.allocations.close()  # the agent is gone before it sees the end
    assert site.allocations.end_here("here.main.0") is not None
    again = Site(tmp_path, site.runners)
    again.allocations.adopt()
    await again.until(run, FAILED)
    entry = again.allocations.newest_of("here.main.0")
    assert entry is not None
    assert entry.status.message == "ended at its site, by `mumian-agent cancel`"
    assert again.allocations.end_here("here.main.0") is None
