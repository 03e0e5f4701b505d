"""Several runs of the same policy as one row: means and spreads over the seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from mumian_orchestrator.bench.sim.record import Record

# What a comparison shows, in this order.
COMPARED = (
    "inside_slo",
    "inside_soft_slo",
    "starts",
    "waiting_at_end",
    "wait_mean_s",
    "cpu_utilisation",
    "core_fragments",
    "device_fragments",
    "accelerator_utilisation",
    "meter_kwh",
    "idle_kwh",
    "pue",
    "carbon_kg",
    "cny",
    "cny_per_core_hour",
    "moves",
    "gap_to_bound",
    "fairness_jain",
    "decision_us",
)


@dataclass(frozen=True, slots=True)
class Value:
    """Mean and standard deviation over the seeds."""

    mean: float
    spread: float


@dataclass(frozen=True, slots=True)
class Row:
    """One policy on one scenario; None: the figure does not apply."""

    scenario: str
    policy: str
    seeds: tuple[int, ...]
    values: Mapping[str, Value | None]

    @property
    def told_seeds(self) -> str:
        """Which runs these are the figures of."""
        return f"mean of {len(self.seeds)} seeds" if len(self.seeds) > 1 else f"seed {self.seeds[0]}"


def rows(records: Sequence[Record], names: Sequence[str] = COMPARED) -> list[Row]:
    """By scenario and policy, in the records' order; of the figures of these names."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for one in records:
        groups[one.scenario, one.policy].append(one)
    return [
        Row(scenario, policy, tuple(r.seed for r in group), {name: _value(name, group) for name in names})
        for (scenario, policy), group in groups.items()
    ]


def _value(name: str, group: Sequence[Record]) -> Value | None:
    if name == "decision_us":
        found = [record.clock.decision_us_per_task for record in group]
    else:
        given = [record.figures[name] for record in group]
        if any(value is None for value in given):
            return None
        found = [float(str(value)) for value in given]
    return Value(fmean(found), stdev(found) if len(found) > 1 else 0.0)
