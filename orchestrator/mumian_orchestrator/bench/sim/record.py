"""One run as a value that can be kept, sent to another process, and reported."""

from __future__ import annotations

import dataclasses
import os
import platform
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mumian_orchestrator.bench.sim.gauge import Reading
from mumian_orchestrator.bench.sim.policies import policy
from mumian_orchestrator.bench.sim.report.figures import figures
from mumian_orchestrator.bench.sim.runner import Progress, Run
from mumian_orchestrator.bench.sim.simulation import Sample


@dataclass(frozen=True, slots=True)
class Clock:
    """How long it took on this machine; all that is not deterministic."""

    wall_s: float
    decision_s: float
    decision_us_per_task: float
    tasks_per_s: float
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that a report needs of one run."""

    scenario: str
    policy: str
    seed: int
    mode: str
    nodes: int
    duration_s: int
    figures: Mapping[str, object]
    samples: tuple[Sample, ...]
    readings: tuple[Reading, ...]
    clock: Clock

    def as_json(self) -> dict[str, object]:
        """For `--output json`; `clock` is the one part that differs from run to run."""
        return {
            "scenario": self.scenario,
            "policy": self.policy,
            "seed": self.seed,
            "mode": self.mode,
            "nodes": self.nodes,
            "duration_s": self.duration_s,
            "figures": dict(self.figures),
            "samples": [dataclasses.asdict(sample) for sample in self.samples],
            "clock": dataclasses.asdict(self.clock),
        }


def record(run: Run, seed: int, progress: Progress | None = None) -> Record:
    """Run, and keep what came of it."""
    start = time.perf_counter()
    made = run.simulate(seed, progress)
    wall_s = time.perf_counter() - start
    found = figures(made)
    tasks = made.account.arrived
    return Record(
        scenario=run.scenario.name,
        policy=policy(run.policy_name).name,
        seed=seed,
        mode=run.mode,
        nodes=run.scenario.node_count,
        duration_s=run.scenario.duration_s,
        figures=found,
        samples=tuple(made.samples),
        readings=tuple(made.readings),
        clock=Clock(
            wall_s=round(wall_s, 3),
            decision_s=round(made.backend.decision_s, 3),
            decision_us_per_task=round(1e6 * made.backend.decision_s / max(1, len(made.account.waits_s)), 2),
            tasks_per_s=round(tasks / wall_s, 1),
            memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        ),
    )


@cache
def machine() -> str:
    """The machine in one line."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
        memory = f", {memory_kib // 1024 // 1024} GiB"
    except OSError:
        memory = ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {cores} cores{memory}; {system}"
