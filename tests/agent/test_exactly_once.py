"""Commands that come twice, late, in any order, over restarts of the agent start an attempt at most once."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from mumian.agent.v1.agent_pb2 import AllocationStatus, RunAllocation
from mumian.api.v1 import job_pb2
from mumian_agent.adapters.grpc.coordinator_stream import Outbox
from mumian_agent.agent.allocations import Allocations
from mumian_agent.agent.ports import RunnerHandle
from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime.journal import Journal
from mumian_agent.runtime.task import Task, TaskView

from tests.agent.bundles import folders_of
from tests.agent.one_node import accounts, one_node
from tests.agent.scripted_coordinator import run_of

RUNNING, CANCELLED = job_pb2.ALLOCATION_STATE_RUNNING, job_pb2.ALLOCATION_STATE_CANCELLED


class EndlessRunner:
    """Runs its task until it is stopped, without a process."""

    def __init__(self, name: str, starts: Counter[AllocationKey]) -> None:
        self.name, self._starts = name, starts
        self._stopped: dict[AllocationKey, asyncio.Event] = {}

    async def run(self, task: Task) -> TaskView:
        self._starts[task.key] += 1
        self._stopped[task.key] = asyncio.Event()
        return self._view(task.key, 1, job_pb2.ALLOCATION_STATE_RUNNING)

    async def changed_after(self, key: AllocationKey, version: int) -> TaskView | None:
        if key not in self._stopped:
            return None
        if version == 0 and not self._stopped[key].is_set():
            return self._view(key, 1, job_pb2.ALLOCATION_STATE_RUNNING)
        await self._stopped[key].wait()
        return self._view(key, 2, CANCELLED)

    async def stop(self, key: AllocationKey) -> None:
        self._stopped[key].set()

    def _view(self, key: AllocationKey, version: int, state: job_pb2.AllocationState.ValueType) -> TaskView:
        return TaskView(version, AllocationStatus(allocation_id=key[0], attempt=key[1], state=state), None)


class EndlessRunners:
    """As many as are asked for; they outlive the agent."""

    def __init__(self) -> None:
        self.starts: Counter[AllocationKey] = Counter()
        self._all: dict[str, EndlessRunner] = {}

    async def open(self, in_use: Iterable[str]) -> None:
        pass

    async def warm_up(self, node_ids: Iterable[str]) -> None:
        pass

    async def take(self, node_id: str) -> RunnerHandle:
        runner = EndlessRunner(f"runner-{len(self._all)}", self.starts)
        self._all[runner.name] = runner
        return runner

    def find(self, name: str) -> RunnerHandle | None:
        return self._all.get(name)

    def give_back(self, runner: RunnerHandle) -> None:
        pass

    def discard(self, runner: RunnerHandle) -> None:
        pass


def allocations_in(folder: Path, runners: EndlessRunners) -> Allocations:
    """Of an agent that starts on that state."""
    nodes = one_node(stop_grace_s=0.0, core_active_power_mw=0)
    return Allocations(Journal(folder), runners, Outbox(), nodes, accounts(), folders_of(folder))


async def settled() -> None:
    """Let everything that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


command = st.tuples(
    st.sampled_from(["run", "stop", "restart the agent"]),
    st.sampled_from(["a", "b"]),
    st.integers(1, 2),
    st.booleans(),  # whether the next one comes only when this one has been obeyed
)


@settings(max_examples=150)
@given(st.lists(command, max_size=12))
def test_no_order_of_commands_starts_an_attempt_twice_or_after_its_stop_or_after_a_newer_one(
    commands: list[tuple[str, str, int, bool]],
) -> None:
    async def play(folder: Path) -> None:
        runners = EndlessRunners()
        allocations = allocations_in(folder, runners)
        stopped: set[AllocationKey] = set()
        before_stop: Counter[AllocationKey] = Counter()
        wanted: dict[AllocationKey, RunAllocation] = {}
        for name, allocation_id, attempt, is_awaited in commands:
            key = AllocationKey(allocation_id, attempt)
            if name == "run":
                wanted[key] = run_of(allocation_id, "true", attempt=attempt)
                allocations.run(wanted[key])
            elif name == "stop":
                allocations.stop(key)
                if key not in stopped:
                    stopped.add(key)
                    before_stop[key] = runners.starts[key]
            else:
                allocations.close()
                allocations = allocations_in(folder, runners)
                allocations.adopt()
            if is_awaited:
                await settled()
        allocations.welcome(run for key, run in wanted.items() if key not in stopped)
        await settled()
        assert all(starts == 1 for starts in runners.starts.values())
        for key in stopped:
            assert runners.starts[key] == before_stop[key], "started after its stop"
        states = {AllocationKey(s.allocation_id, s.attempt): s.state for s in allocations.statuses()}
        newest: dict[str, AllocationKey] = {k.allocation_id: k for k in sorted({*wanted, *stopped})}
        for key, state in states.items():
            is_wanted = key in wanted and key not in stopped and key == newest[key.allocation_id]
            assert state == (RUNNING if is_wanted else CANCELLED)
        allocations.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))
