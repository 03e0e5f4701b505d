"""Which jobs come when, and their tasks: drawn from the scenario and the seed alone."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from typing import NamedTuple

from mumian_orchestrator.bench.sim.jobs import JobClass
from mumian_orchestrator.bench.sim.scenario import Scenario


class Arrival(NamedTuple):
    """One task. `number` counts the jobs of its class, and breaks ties of time; `group` is the number of its
    task group, and `task_index` counts the tasks of that.
    """

    at_s: float
    job_class: int
    number: int
    zone: str
    run_time_s: float
    group: int = 0
    task_index: int = 0

    @property
    def job_id(self) -> str:
        """Unique in a run."""
        return f"c{self.job_class}-{self.number}"

    @property
    def id(self) -> str:
        """Unique in a run."""
        return task_id(self.job_id, self.group, self.task_index)


def task_id(job_id: str, group: int, index: int) -> str:
    """Of a task, by the number of its group. The first task has its job's id."""
    return f"{job_id}.{group}.{index}" if group or index else job_id


def tasks_of(job: JobClass, first: Arrival) -> Iterator[Arrival]:
    """All tasks of the job that `first` is the first of."""
    for number, group in enumerate(job.groups):
        for index in range(group.count):
            yield first._replace(group=number, task_index=index)


def arrivals(scenario: Scenario, seed: int) -> Iterator[Arrival]:
    """All tasks in order of time, those of a job together.

    Each class draws from a generator of its own, so that a class that is added changes no other.
    """
    streams = [
        _of_class(index, job, scenario.duration_s, random.Random(f"{seed}/{job.name}"))
        for index, job in enumerate(scenario.jobs)
    ]
    return heapq.merge(*streams)


def _of_class(index: int, job: JobClass, duration_s: int, rng: random.Random) -> Iterator[Arrival]:
    times = iter(job.trace_s) if job.trace_s else _poisson(job.per_hour, duration_s, rng)
    for number, at_s in enumerate(times):
        if at_s >= duration_s:
            return
        if job.trace_run_times_s:
            run_time_s = job.trace_run_times_s[number]
        else:
            run_time_s = job.run_time_s if job.is_run_time_fixed else rng.expovariate(1 / job.run_time_s)
        first = Arrival(at_s, index, number, rng.choice(job.zones), max(1.0, run_time_s))
        yield from (first,) if job.is_single else tasks_of(job, first)


def _poisson(per_hour: tuple[float, ...], duration_s: int, rng: random.Random) -> Iterator[float]:
    """A Poisson process with a rate for each hour of the day, by thinning (Lewis and Shedler 1979)."""
    most = max(per_hour)
    at_s = 0.0
    while most > 0:
        at_s += rng.expovariate(most / 3600)
        if at_s >= duration_s:
            return
        if rng.random() * most < per_hour[int(at_s // 3600) % 24]:
            yield at_s
