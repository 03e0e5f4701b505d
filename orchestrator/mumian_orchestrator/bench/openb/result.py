"""What the replays of one workload come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from mumian_orchestrator.bench.openb.messages import Objective
from mumian_orchestrator.bench.openb.published import PERCENTS
from mumian_orchestrator.bench.openb.replay import Replay


@dataclass(frozen=True)
class Outcome:
    """One objective over all seeds."""

    objective: Objective
    replays: Sequence[Replay]

    @property
    def name(self) -> str:
        """Of the objective, in figures."""
        return self.objective.name.lower()

    def allocated(self, at: int) -> list[float]:
        """GPU allocation in percent at an arrived demand in percent, one a seed."""
        return [replay.allocated_percent[at] for replay in self.replays]

    def mean(self, at: int) -> float:
        """The mean over the seeds."""
        return fmean(self.allocated(at))

    def spread(self, at: int) -> float:
        """From the lowest seed to the highest, in percentage points."""
        return max(self.allocated(at)) - min(self.allocated(at))

    def speed(self) -> float:
        """Placements per second of one core inside the engine, median over the seeds."""
        return median(replay.placements_per_second for replay in self.replays)

    def to_json(self) -> dict[str, object]:
        """All values, one a seed."""
        return {
            "objective": self.name,
            "gpu_allocated_percent": {
                str(at): {"mean": self.mean(at), "min": min(values), "max": max(values), "values": values}
                for at in PERCENTS
                for values in [self.allocated(at)]
            },
            "placements_per_second": {
                "median": self.speed(),
                "values": [replay.placements_per_second for replay in self.replays],
            },
            "replays": [
                {
                    "seed": replay.seed,
                    "arrived_tasks": replay.arrived,
                    "placed_tasks": replay.placed,
                    "placing_seconds": replay.placing.seconds,
                    "placing_core_seconds": replay.placing.core_seconds,
                }
                for replay in self.replays
            ],
        }
