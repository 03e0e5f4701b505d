"""Makes jobs along with a place for each of their tasks, node by node, so that a solution is known."""

from __future__ import annotations

from array import array
from bisect import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from random import Random

from mumian.api.v1.fleet_pb2 import Site

from bench.global_placement.nodes import LOAD, SHAPES, Capacity
from bench.global_placement.workload import Template

# Of so many jobs that could have a task here, the one that loads cores and memory most evenly gets it.
DRAWS = 4


class Plant:
    """Fills nodes, one after the other.

    Args:
        templates: the jobs; `nodes_of_job` says where the tasks of each are.
        capacities: of each shape.
    """

    def __init__(self, rng: Random, templates: Sequence[Template], capacities: Sequence[Capacity]) -> None:
        self.nodes_of_job = [array("L") for _ in templates]
        self.task_count = 0
        self._rng = rng
        self._demands = [(t.cpu_milli, t.memory_mib, t.devices) for t in templates]
        self._templates = templates
        self._capacities = capacities
        self._devices_seen: dict[str, int] = defaultdict(int)
        self._devices_used: dict[str, int] = defaultdict(int)
        self._urns: dict[tuple[str, str | None], _Urn] = {}

    def fill(self, node: int, site: Site, rtt_us: Mapping[str, int], shape: int, tasks: int) -> None:
        """Put up to so many tasks on an empty node: first those with accelerators, up to the load."""
        capacity, model = self._capacities[shape], SHAPES[shape].model
        room = [capacity.cpu_milli, capacity.memory_mib, capacity.devices]
        if model:
            self._devices_seen[model] += capacity.devices
        for step in range(tasks):
            level = 1 - LOAD * (step + 1) / tasks
            job = None
            if model and self._devices_used[model] < LOAD * self._devices_seen[model] - 0.5:
                job = self._draw(self._urn(site, rtt_us, model), room, capacity, level)
            if job is None:
                job = self._draw(self._urn(site, rtt_us, None), room, capacity, level)
            if job is None:
                return
            room = [has - takes for has, takes in zip(room, self._demands[job], strict=True)]
            if model:
                self._devices_used[model] += self._demands[job][2]
            self.nodes_of_job[job].append(node)
            self.task_count += 1

    def _draw(self, urn: _Urn, room: Sequence[int], capacity: Capacity, level: float) -> int | None:
        """A job whose task fits, of a few the one that leaves cores and memory nearest to the level."""
        best, best_distance = None, 0.0
        for _ in range(DRAWS):
            job = urn.draw(self._rng)
            cpu_milli, memory_mib, devices = self._demands[job]
            if cpu_milli > room[0] or memory_mib > room[1] or devices > room[2]:
                continue
            cpu_left = (room[0] - cpu_milli) / capacity.cpu_milli
            memory_left = (room[1] - memory_mib) / capacity.memory_mib
            distance = max(abs(cpu_left - level), abs(memory_left - level))
            if best is None or distance < best_distance:
                best, best_distance = job, distance
        return best

    def _urn(self, site: Site, rtt_us: Mapping[str, int], model: str | None) -> _Urn:
        """The jobs that may run at the site: with accelerators of the model, or without any."""
        key = (site.id, model)
        if key not in self._urns:
            jobs = [
                job
                for job, template in enumerate(self._templates)
                if (model in template.models if model else not template.models)
                and template.may_run_at(site)
                and template.keeps_promise(rtt_us, model)
            ]
            self._urns[key] = _Urn(jobs, [self._templates[job].weight for job in jobs])
        return self._urns[key]


class _Urn:
    """Jobs to draw from, each as often as it weighs."""

    def __init__(self, jobs: list[int], weights: list[float]) -> None:
        self._jobs = jobs
        self._steps = list(accumulate(weights))

    def draw(self, rng: Random) -> int:
        return self._jobs[min(bisect(self._steps, rng.random() * self._steps[-1]), len(self._jobs) - 1)]
