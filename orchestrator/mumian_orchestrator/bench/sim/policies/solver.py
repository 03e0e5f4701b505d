"""CP-SAT and HiGHS as policies: the tasks of each tick are placed jointly at the least cost, by a solver."""

from __future__ import annotations

import json
import subprocess
import weakref
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mumian.api.v1.job_pb2 import JOB_KIND_GANG
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.policies.base import Cluster
from mumian_orchestrator.bench.sim.policies.booked import Allowed, BookedPolicy
from mumian_orchestrator.bench.sim.policies.books import WHOLE_MILLI, Books, Room, Task, Wanted
from mumian_orchestrator.bench.sim.policies.limits import has_limits

# The solvers have an environment of their own in a checkout: `make peers`.
_CHECKOUT = Path()
_PYTHON = Path("bench/peers/.venv/bin/python")
# A decision of a tick may take so long; what is found by then counts. A run that needs it is not replayable.
SECONDS_MAX = 2.0
# Kinds of tasks x nodes: beyond, building the model alone takes longer than a tick is worth.
PAIRS_MAX = 100_000


class _Kind(NamedTuple):
    priority: int
    task: Task


class SolverPolicy(BookedPolicy):
    """An integer program for each tick: how many tasks of each kind go to which node.

    Devices are counted whole and in thousandths over a node; which device a task gets is left to first fit,
    and a task for which that finds none waits for the next tick.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._solver: _Solver | None = None

    def choose(self, books: Books, task: Task, allowed: Allowed | None) -> int | None:  # noqa: ARG002
        """Not asked: all tasks are placed together."""
        return None

    def place(self, cluster: Cluster, request: engine_pb2.PlaceRequest) -> engine_pb2.Plan:
        """All tasks that want a place, at once."""
        plan = engine_pb2.Plan(evaluation_id=request.evaluation_id)
        books = self._see(cluster)
        kinds = self._kinds(cluster, request.jobs)
        nodes = [
            number
            for number, room in enumerate(books.rooms)
            if any(_may_run(room, kind.task) for kind in kinds)
        ]
        if not nodes:
            return plan
        if len(kinds) * len(nodes) > PAIRS_MAX:
            raise ScenarioError(
                f"policy {self.name}: {len(kinds)} kinds of tasks on {len(nodes)} nodes are more than "
                f"{PAIRS_MAX} pairs; take a smaller form of the scenario (--scale)"
            )
        rooms = [books.rooms[number] for number in nodes]
        if self._solver is None:
            self._solver = _Solver(self.name)
        model = _model({kind: len(tasks) for kind, tasks in kinds.items()}, rooms, cluster)
        named = list(kinds)
        # Whole devices first: they are what a share of one would break.
        for kind_number, position, count in sorted(
            self._solver.solve(model), key=lambda entry: -named[entry[0]].task.accelerator_milli
        ):
            if position == len(nodes):
                continue  # these wait
            task, waiting = named[kind_number].task, kinds[named[kind_number]]
            number = nodes[position]
            for _ in range(count):
                if books.rooms[number].fits(task):
                    plan.placements.append(self.booked(books, waiting.pop(0), number))
        return plan

    def _kinds(self, cluster: Cluster, jobs: Sequence[engine_pb2.PendingJob]) -> dict[_Kind, list[Wanted]]:
        found: defaultdict[_Kind, list[Wanted]] = defaultdict(list)
        for job in jobs:
            for wanted in self.wanted(cluster, job):
                if job.spec.kind == JOB_KIND_GANG or has_limits(job.spec) or wanted.task.traffic:
                    raise ScenarioError(
                        f"policy {self.name} knows neither gangs nor bandwidth nor limits between tasks "
                        f"({job.spec.name}); leave it out for this scenario"
                    )
                found[_Kind(job.spec.priority, wanted.task)].append(wanted)
        return found


def _may_run(room: Room, task: Task) -> bool:
    return room.kind in task.kinds and room.fits(task)


def _model(counts: Mapping[_Kind, int], rooms: Sequence[Room], cluster: Cluster) -> dict[str, Any]:
    """As `bench/peers/model.py` reads it. The last node is where tasks wait; it costs more than any other."""
    demands = [_demand(kind.task) for kind in counts]
    everything = [
        sum(count * demand[resource] for demand, count in zip(demands, counts.values(), strict=True))
        for resource in range(len(demands[0]))
    ]
    costs: list[list[int | None]] = [
        [
            cost_microcny_per_hour(kind.task, room, cluster.carbon_kg_microcny)
            if _may_run(room, kind.task)
            else None
            for room in rooms
        ]
        for kind in counts
    ]
    dearest = max((cost for row in costs for cost in row if cost is not None), default=0)
    for row, kind in zip(costs, counts, strict=True):
        row.append((dearest + 1) * (1 + kind.priority))
    return {
        "kind_counts": list(counts.values()),
        "kind_demands": demands,
        "node_capacities": [*map(_capacity, rooms), everything],
        "node_classes": list(range(len(rooms) + 1)),
        "costs": costs,
    }


def _demand(task: Task) -> list[int]:
    """Cores, memory, devices in thousandths, whole devices."""
    return [task.cpu_milli, task.memory_mib, task.accelerator_milli, task.accelerator_milli // WHOLE_MILLI]


def _capacity(room: Room) -> list[int]:
    whole = sum(left == WHOLE_MILLI for left in room.devices_milli)
    return [room.cpu_milli, room.memory_mib, sum(room.devices_milli), whole]


def cost_microcny_per_hour(task: Task, room: Room, carbon_kg_microcny: int) -> int:
    """Rent, energy at the meter and its carbon, and what a soft promise costs, as the engine counts them."""
    prices, node = room.site.prices, room.node
    model = room.device_models[0] if room.device_models else ""
    device_mw = node.accelerators[0].active_power_mw if node.accelerators else 0
    rent = (
        task.cpu_milli * prices.cpu_core_hour_microcny / 1000
        + task.memory_mib * prices.memory_gib_hour_microcny / 1024
        + task.accelerator_milli * prices.accelerator_hour_microcny.get(model, 0) / 1000
    )
    it_mw = (task.cpu_milli * node.core_active_power_mw + task.accelerator_milli * device_mw) / 1000
    meter_kw = it_mw / 1e6 * room.site.pue.marginal_permille / 1000
    kwh_microcny = prices.energy_kwh_microcny + room.site.carbon_g_per_kwh / 1000 * carbon_kg_microcny
    soft = next((cost for kind, cost in task.soft_microcny_per_hour if kind == room.kind), 0)
    return round(rent + meter_kw * kwh_microcny) + soft


class _Solver:
    """A process that answers one model after another."""

    def __init__(self, name: str) -> None:
        python = _CHECKOUT / _PYTHON
        if not python.exists():
            raise ScenarioError(
                f"policy {name} needs the solvers of a checkout ({python} is not there); run `make peers` "
                "there, and this command from there"
            )
        self._name = name
        self._process = subprocess.Popen(
            [python.absolute(), "-m", "bench.peers.serve", name],
            cwd=_CHECKOUT.absolute(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        weakref.finalize(self, _end, self._process)

    def solve(self, model: Mapping[str, Any]) -> list[tuple[int, int, int]]:
        """Kind, node and how many of them; none where the solver has found nothing in time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(
            json.dumps({"model": model, "seconds": SECONDS_MAX, "threads": 1, "seed": 0}),
            file=self._process.stdin,
            flush=True,
        )
        line = self._process.stdout.readline()
        if not line:
            raise ScenarioError(f"policy {self._name}: the solver has ended; run `make peers` again")
        return [(kind, node, count) for kind, node, count in json.loads(line)["placed"]]


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate()
