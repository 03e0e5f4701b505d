"""The work of a scenario: classes of alike jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from mumian_orchestrator.bench.sim.fields import Fields, ScenarioError
from mumian_orchestrator.bench.sim.task_groups import TaskGroup, check_names, read_group

KINDS = {"batch", "gang"}


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
        is_movable: it is a service: the coordinator may move its running tasks. By default so are jobs with a
            hard latency promise, but for gangs: sessions, not batch work.
        jurisdictions: its data may only be where one of them covers the site's: CN covers CN-GD; none named:
            anywhere.
        operators_allowed, operators_denied: whose sites it may run at; none named: anybody's.
        pue_max_permille: of its site at that hour; 0: any.
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
    jurisdictions: tuple[str, ...]
    operators_allowed: tuple[str, ...]
    operators_denied: tuple[str, ...]
    pue_max_permille: int
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
    groups = f.items("groups", _named_group) if f.has("groups") else (read_group(f, "main"),)
    check_names(f, groups)
    has_promise = any(group.is_hard for group in groups)
    is_movable = f.whole("movable", int(has_promise and kind != "gang")) == 1
    if is_movable and kind == "gang":
        raise ScenarioError(f"{f.at('movable')} (1) is not for gangs, which stay together; leave it out")
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
        is_movable=is_movable,
        jurisdictions=f.texts("jurisdictions"),
        operators_allowed=f.texts("operators_allowed"),
        operators_denied=f.texts("operators_denied"),
        pue_max_permille=_pue_ceiling(f),
        groups=groups,
    )


def _named_group(f: Fields) -> TaskGroup:
    return read_group(f, f.text("name"))


def _pue_ceiling(f: Fields) -> int:
    ceiling = f.whole("pue_max_permille", 0)
    if 0 < ceiling < 1000:
        raise ScenarioError(
            f"{f.at('pue_max_permille')} ({ceiling}) is below 1000, which no site can be; 1250 means 1.25"
        )
    return ceiling
