"""What tasks ask for. All that a scenario says of a task group is named here: read, kept, and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mumian_orchestrator.bench.sim.fields import Fields, ScenarioError
from mumian_orchestrator.domain.job_spec import ARCHS

# The domains that spreads and `apart_from` count by, as in `mumian.api.v1.Topology`.
TOPOLOGIES = {"node": 1, "site": 2, "operator": 3}
_NAMES = {number: name for name, number in TOPOLOGIES.items()}
_MICROCNY = 1_000_000


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


class Machine(Protocol):
    """A node class, as far as compute times depend on it."""

    @property
    def arch(self) -> str:
        """Of its processor."""

    @property
    def accelerator_model(self) -> str:
        """Of its devices; empty: it has none."""


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Alike tasks of a job.

    Args:
        count: how many of them each job has.
        accelerator_models: those that it accepts; none named: any.
        archs: the processors that it runs on; none named: any.
        labels: what its node has to be labelled with.
        slo_budget_us: from the job's zone; 0: no latency promise.
        soft_microcny_per_ms_hour: not 0: the promise is soft. It refuses no place, and each millisecond over
            the budget is worth so much for an hour.
        patience_s: a service whose hard promise has been broken for so long moves; 0: the coordinator's.
        compute_us_by_model, compute_us_by_arch: in place of `compute_us`; the model counts before the
            processor.
        mbps: traffic of one task with the job's zone.
    """

    name: str
    count: int
    cpu_milli: int
    memory_mib: int
    accelerator_milli: int
    accelerator_models: tuple[str, ...]
    archs: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    slo_budget_us: int
    soft_microcny_per_ms_hour: int
    patience_s: float
    compute_us: int
    compute_us_by_model: tuple[tuple[str, int], ...]
    compute_us_by_arch: tuple[tuple[str, int], ...]
    client_us: int
    mbps: float
    spreads: tuple[Spread, ...]
    apart_from: tuple[ApartFrom, ...]
    near: tuple[Near, ...]

    @property
    def is_hard(self) -> bool:
        """Whether it has a latency promise that every place has to keep."""
        return bool(self.slo_budget_us and not self.soft_microcny_per_ms_hour)

    def compute_us_on(self, machine: Machine) -> int:
        """How long it computes there."""
        by_model, by_arch = dict(self.compute_us_by_model), dict(self.compute_us_by_arch)
        if self.accelerator_milli and machine.accelerator_model in by_model:
            return by_model[machine.accelerator_model]
        return by_arch.get(machine.arch, self.compute_us)

    def keeps_promise(self, rtt_p99_us: int, machine: Machine) -> bool:
        """Whether users so far away are inside the budget."""
        spent_us = self.compute_us_on(machine) + self.client_us
        return not self.slo_budget_us or rtt_p99_us + spent_us <= self.slo_budget_us


def read_group(f: Fields, name: str) -> TaskGroup:
    """What one group says.

    Raises:
        ScenarioError: a field is wrong.
    """
    accelerator_milli = f.whole("accelerator_milli", 0)
    if accelerator_milli > 1000 and accelerator_milli % 1000:
        raise ScenarioError(
            f"{f.at('accelerator_milli')} ({accelerator_milli}) must be at most 1000, or whole thousands"
        )
    archs = f.texts("archs")
    for arch in archs:
        f.known("archs", arch, {known: known for known in ARCHS})
    group = TaskGroup(
        name=name,
        count=f.whole("count", 1, least=1),
        cpu_milli=f.whole("cpu_milli", least=1),
        memory_mib=f.whole("memory_mib", least=1),
        accelerator_milli=accelerator_milli,
        accelerator_models=f.texts("accelerator_models"),
        archs=archs,
        labels=f.texts_by_name("labels"),
        slo_budget_us=_us(f.number("slo_budget_ms", 0.0)),
        soft_microcny_per_ms_hour=round(_MICROCNY * f.number("soft_cny_per_ms_hour", 0.0)),
        patience_s=f.number("patience_s", 0.0),
        compute_us=_us(f.number("compute_ms", 0.0)),
        compute_us_by_model=tuple((k, _us(ms)) for k, ms in f.numbers_by_name("compute_ms_by_model")),
        compute_us_by_arch=tuple((k, _us(ms)) for k, ms in f.numbers_by_name("compute_ms_by_arch")),
        client_us=_us(f.number("client_ms", 0.0)),
        mbps=f.number("mbps", 0.0),
        spreads=f.items("spreads", _spread, least=0),
        apart_from=f.items("apart_from", _apart_from, least=0),
        near=f.items("near", _near, least=0),
    )
    for arch, _ in group.compute_us_by_arch:
        f.known("compute_ms_by_arch", arch, {known: known for known in ARCHS})
    if not group.slo_budget_us and group.soft_microcny_per_ms_hour:
        raise ScenarioError(f"{f.at('soft_cny_per_ms_hour')} needs slo_budget_ms, over which it counts")
    if group.patience_s and not group.is_hard:
        raise ScenarioError(f"{f.at('patience_s')} is for hard latency promises; give slo_budget_ms alone")
    return group


def written(group: TaskGroup) -> dict[str, object]:
    """As a scenario file says it, without what is 0 or empty."""
    raw: dict[str, object] = {
        "name": group.name,
        "count": group.count,
        "cpu_milli": group.cpu_milli,
        "memory_mib": group.memory_mib,
        "accelerator_milli": group.accelerator_milli,
        "accelerator_models": list(group.accelerator_models),
        "archs": list(group.archs),
        "labels": dict(group.labels),
        "slo_budget_ms": group.slo_budget_us / 1000,
        "soft_cny_per_ms_hour": group.soft_microcny_per_ms_hour / _MICROCNY,
        "patience_s": group.patience_s,
        "compute_ms": group.compute_us / 1000,
        "compute_ms_by_model": {model: us / 1000 for model, us in group.compute_us_by_model},
        "compute_ms_by_arch": {arch: us / 1000 for arch, us in group.compute_us_by_arch},
        "client_ms": group.client_us / 1000,
        "mbps": group.mbps,
        "spreads": [{"topology": _NAMES[s.topology], "max_tasks": s.max_tasks} for s in group.spreads],
        "apart_from": [{"topology": _NAMES[a.topology], "group": a.group} for a in group.apart_from],
        "near": [{"group": near.group, "budget_ms": near.budget_us / 1000} for near in group.near],
    }
    return {name: value for name, value in raw.items() if value}


def check_names(f: Fields, groups: tuple[TaskGroup, ...]) -> None:
    """Refuse groups of one name, and limits with groups that are not there."""
    names: Mapping[str, TaskGroup] = {group.name: group for group in groups}
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


def _us(ms: float) -> int:
    return round(1000 * ms)


def _spread(f: Fields) -> Spread:
    return Spread(_topology(f), f.whole("max_tasks", least=1))


def _apart_from(f: Fields) -> ApartFrom:
    return ApartFrom(_topology(f), f.text("group"))


def _near(f: Fields) -> Near:
    return Near(f.text("group"), _us(f.number("budget_ms", least=0.001)))


def _topology(f: Fields) -> int:
    name = f.text("topology")
    f.known("topology", name, TOPOLOGIES)
    return TOPOLOGIES[name]
