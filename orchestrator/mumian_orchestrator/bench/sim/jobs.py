"""The work of a scenario: classes of alike jobs, and the task groups of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mumian_orchestrator.bench.sim.fields import Fields, ScenarioError

# The domains that spreads and `apart_from` count by, as in `mumian.api.v1.Topology`.
TOPOLOGIES = {"node": 1, "site": 2, "operator": 3}
KINDS = {"batch", "gang"}


class Spread(NamedTuple):
    """At most so many tasks of the group in one domain."""

    topology: int
    max_tasks: int


class ApartFrom(NamedTuple):
    """No task of this group where one of another group is, nor the reverse."""

    topology: int
    group: str


class Near(NamedTuple):
    """A limit between two groups: round trip p99 between their sites + compute time of this one."""

    group: str
    budget_us: int


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Alike tasks of a job.

    Args:
        count: how many of them each job has.
        accelerator_models: those that it accepts; none named: any.
        slo_budget_us: from the job's zone; 0: no latency promise.
        mbps: traffic of one task with the job's zone.
    """

    name: str
    count: int
    cpu_milli: int
    memory_mib: int
    accelerator_milli: int
    accelerator_models: tuple[str, ...]
    slo_budget_us: int
    compute_us: int
    client_us: int
    mbps: float
    spreads: tuple[Spread, ...]
    apart_from: tuple[ApartFrom, ...]
    near: tuple[Near, ...]

    def keeps_promise(self, rtt_p99_us: int) -> bool:
        """Whether users so far away are inside the budget."""
        return not self.slo_budget_us or rtt_p99_us + self.compute_us + self.client_us <= self.slo_budget_us


@dataclass(frozen=True, slots=True)
class JobClass:
    """Alike jobs.

    Args:
        is_gang: all tasks of a job start, or none.
        per_hour: mean arrivals of jobs by hour of the day.
        trace_s, trace_run_times_s: in place of drawn arrivals and, where given, run times.
        run_time_s: mean of an exponential distribution, or (`is_run_time_fixed`) of every job. All tasks of
            a job run as long.
        start_s: from its place to its first second of work: fetching, starting. It holds its room meanwhile.
        zones: the users of each job are in one of them, drawn evenly; a zone that is named twice is drawn
            twice as often.
        is_movable: a running task may be moved, as the coordinator moves services. By default those of jobs
            with a latency promise: sessions, not batch work.
    """

    name: str
    tenant: str
    priority: int
    is_gang: bool
    per_hour: tuple[float, ...]
    trace_s: tuple[float, ...]
    trace_run_times_s: tuple[float, ...]
    run_time_s: float
    is_run_time_fixed: bool
    start_s: float
    zones: tuple[str, ...]
    is_movable: bool
    groups: tuple[TaskGroup, ...]

    @property
    def arrivals_a_day(self) -> float:
        """Jobs on average; of a trace: all of it."""
        return len(self.trace_s) or sum(self.per_hour)

    @property
    def is_single(self) -> bool:
        """Each job is one task."""
        return len(self.groups) == 1 and self.groups[0].count == 1


class HasUsers(Protocol):
    """A zone, as far as jobs care."""

    @property
    def users(self) -> int:
        """Its weight among the zones."""


def read_job(f: Fields, zones: Mapping[str, HasUsers]) -> JobClass:
    """One entry of `jobs`.

    Raises:
        ScenarioError: a field is wrong.
    """
    arrivals = Fields(f.take("arrivals"), f.at("arrivals"))
    trace, run_times = arrivals.numbers("at_s"), arrivals.numbers("run_s")
    per_hour = (0.0,) * 24 if trace else arrivals.day("per_hour")
    arrivals.end()
    if run_times and len(run_times) != len(trace):
        raise ScenarioError(
            f"{arrivals.at('run_s')} has {len(run_times)} values for {len(trace)} of at_s; give one each"
        )
    order = sorted(range(len(trace)), key=lambda index: trace[index])
    kind = f.text("kind", "batch")
    f.known("kind", kind, {name: name for name in sorted(KINDS)})
    # A job of one group says what its tasks ask for without naming the group.
    groups = f.items("groups", _named_group) if f.has("groups") else (_group(f, "main"),)
    _check_names(f, groups)
    has_promise = any(group.slo_budget_us for group in groups)
    return JobClass(
        name=f.text("name"),
        tenant=f.text("tenant"),
        priority=f.whole("priority", 50, least=1),
        is_gang=kind == "gang",
        per_hour=per_hour,
        trace_s=tuple(trace[index] for index in order),
        trace_run_times_s=tuple(run_times[index] for index in order) if run_times else (),
        run_time_s=1.0 if run_times else f.number("run_time_s", least=1.0),
        is_run_time_fixed=f.whole("run_time_fixed", 0) == 1,
        start_s=f.number("start_s", 0.0),
        zones=tuple(id_ for id_ in f.names("zones", zones) for _ in range(zones[id_].users)),
        is_movable=f.whole("movable", int(has_promise)) == 1,
        groups=groups,
    )


def _named_group(f: Fields) -> TaskGroup:
    return _group(f, f.text("name"))


def _group(f: Fields, name: str) -> TaskGroup:
    accelerator_milli = f.whole("accelerator_milli", 0)
    if accelerator_milli > 1000 and accelerator_milli % 1000:
        raise ScenarioError(
            f"{f.at('accelerator_milli')} ({accelerator_milli}) must be at most 1000, or whole thousands"
        )
    return TaskGroup(
        name=name,
        count=f.whole("count", 1, least=1),
        cpu_milli=f.whole("cpu_milli", least=1),
        memory_mib=f.whole("memory_mib", least=1),
        accelerator_milli=accelerator_milli,
        accelerator_models=f.texts("accelerator_models"),
        slo_budget_us=round(1000 * f.number("slo_budget_ms", 0.0)),
        compute_us=round(1000 * f.number("compute_ms", 0.0)),
        client_us=round(1000 * f.number("client_ms", 0.0)),
        mbps=f.number("mbps", 0.0),
        spreads=f.items("spreads", _spread, least=0),
        apart_from=f.items("apart_from", _apart_from, least=0),
        near=f.items("near", _near, least=0),
    )


def _spread(f: Fields) -> Spread:
    return Spread(_topology(f), f.whole("max_tasks", least=1))


def _apart_from(f: Fields) -> ApartFrom:
    return ApartFrom(_topology(f), f.text("group"))


def _near(f: Fields) -> Near:
    return Near(f.text("group"), round(1000 * f.number("budget_ms", least=0.001)))


def _topology(f: Fields) -> int:
    name = f.text("topology")
    f.known("topology", name, TOPOLOGIES)
    return TOPOLOGIES[name]


def _check_names(f: Fields, groups: tuple[TaskGroup, ...]) -> None:
    names = {group.name: group for group in groups}
    if len(names) < len(groups):
        raise ScenarioError(f"{f.at('groups')} has two groups of one name; give each its own")
    for group in groups:
        for other in group.apart_from:
            f.known("groups.apart_from", other.group, names)
            if other.group == group.name:
                raise ScenarioError(
                    f"{f.at('groups')} ({group.name}) is apart_from itself; use spreads for that"
                )
        for near in group.near:
            f.known("groups.near", near.group, names)
