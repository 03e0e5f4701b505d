"""Many runs at once: scenarios x policies x seeds, on all cores of this machine or on a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.record import Record, record
from mumian_orchestrator.bench.sim.runner import Run

# In how many runs a look at the bound is worth its seconds.
READINGS = 6


@dataclass(frozen=True, slots=True)
class Case:
    """One run of a sweep."""

    run: Run
    seed: int

    def __call__(self) -> Record:
        """Do it."""
        return record(self.run, self.seed)


def sweep(
    cases: Sequence[Case], processes: int, *, on_ray: bool, done: Callable[[int], None]
) -> list[Record]:
    """All records, in the order of the cases.

    Args:
        processes: at once on this machine; 0: as many as it has cores. Ray decides by itself.
        done: told how many are done.

    Raises:
        ScenarioError: one of the runs is refused; or Ray is wanted and not installed.
    """
    results: dict[int, Record] = {}
    for index, made in _on_ray(cases) if on_ray else _in_processes(cases, processes):
        results[index] = made
        done(len(results))
    return [results[index] for index in range(len(cases))]


def _in_processes(cases: Sequence[Case], processes: int) -> Iterator[tuple[int, Record]]:
    count = min(processes or len(os.sched_getaffinity(0)), len(cases))
    if count == 1:
        for index, case in enumerate(cases):
            yield index, case()
        return
    # Spawned: a fork would copy threads' locks of this process.
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(case): index for index, case in enumerate(cases)}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            for future in waiting:
                future.cancel()


def _on_ray(cases: Sequence[Case]) -> Iterator[tuple[int, Record]]:
    try:
        import ray
    except ImportError as error:
        raise ScenarioError("--ray needs Ray; install it: pip install 'ray>=2.40'") from error
    started_here = not ray.is_initialized()
    if started_here:
        # The cluster that RAY_ADDRESS names, or one on this machine.
        ray.init(
            address=os.environ.get("RAY_ADDRESS"),
            log_to_driver=False,
            logging_level=logging.ERROR,  # the progress bar is what the terminal shows
            include_dashboard=False,
        )
    try:
        work = ray.remote(num_cpus=1)(_done)
        waiting = {work.remote(case): index for index, case in enumerate(cases)}
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(ready), ray.get(ready)
    finally:
        if started_here:
            ray.shutdown()


def _done(case: Case) -> Record:
    return case()
