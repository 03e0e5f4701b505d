"""`make sim SEEDS=1000`: many simulated runs, each by its seed, judged by the oracle. A seed that fails
prints its number, what was wrong and where its history is; `make sim SEED=17` replays one.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

from tests.sim.city import Outcome, simulate
from tests.sim.faults import FAULTS
from tests.sim.mutations import MUTATIONS

HISTORIES = Path(__file__).resolve().parents[2] / "bench/results/sim"


def main() -> int:
    """Run what was asked for; 1 if anything was lost, done twice or broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, action="append", help="replay this one, and show its log")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only these, each once")
    parser.add_argument("--mutation", choices=[*MUTATIONS, "all"], help="a defect that has to be found")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    if asked.seeds < 1:
        parser.error(f"--seeds ({asked.seeds}) must be at least 1")
    if asked.mutation:
        names = list(MUTATIONS) if asked.mutation == "all" else [asked.mutation]
        found = [_find(name, asked) for name in names]
        return 0 if all(found) else 1
    if asked.seed:
        logging.basicConfig(level=logging.WARNING, format="  %(levelname)s %(message)s")
    begun_s = time.monotonic()
    outcomes = []
    for outcome in _outcomes(asked, asked.seed or range(asked.first, asked.first + asked.seeds)):
        outcomes.append(outcome)
        if not outcome.verdict.is_good:
            print(_told(outcome), flush=True)
    print(_summary(outcomes, time.monotonic() - begun_s))
    return 0 if all(outcome.verdict.is_good for outcome in outcomes) else 1


def _find(mutation: str, asked: argparse.Namespace) -> bool:
    """Whether some seed finds a defect."""
    begun_s = time.monotonic()
    asked.mutation = mutation
    with contextlib.closing(_outcomes(asked, range(asked.first, asked.first + asked.seeds))) as outcomes:
        for number, outcome in enumerate(outcomes, 1):
            if not outcome.verdict.is_good:
                first = str(outcome.verdict).splitlines()[0]
                print(
                    f"{mutation:28} {number:4} seeds {time.monotonic() - begun_s:5.1f} s  {first}", flush=True
                )
                return True
    print(f"{mutation:28} NOT FOUND by {asked.seeds} seeds", flush=True)
    return False


def _outcomes(asked: argparse.Namespace, seeds: range | list[int]) -> Generator[Outcome, None, None]:
    work = [(seed, asked.fault, asked.mutation) for seed in seeds]
    if asked.processes == 1 or len(work) == 1:
        yield from map(_one, work)
        return
    with multiprocessing.get_context("fork").Pool(asked.processes) as pool:
        yield from pool.imap(_one, work)


def _one(work: tuple[int, list[str] | None, str | None]) -> Outcome:
    seed, faults, mutation = work
    if mutation:
        with MUTATIONS[mutation].make():
            outcome = simulate(seed, faults or MUTATIONS[mutation].shown_by)
    else:
        outcome = simulate(seed, faults)
    if outcome.verdict.is_good:
        outcome.history.clear()
    return outcome


def _told(outcome: Outcome) -> str:
    HISTORIES.mkdir(parents=True, exist_ok=True)
    path = HISTORIES / f"{outcome.seed}.jsonl"
    path.write_text("\n".join(outcome.history) + "\n")
    return (
        f"seed {outcome.seed} ({', '.join(outcome.faults)}):\n{outcome.verdict}\n"
        f"  its history is in {path}; `make sim SEED={outcome.seed}` replays it"
    )


def _summary(outcomes: list[Outcome], took_s: float) -> str:
    struck = Counter(fault for outcome in outcomes for fault in outcome.faults)
    bad = Counter(fault for each in outcomes if not each.verdict.is_good for fault in set(each.faults))
    lines = ["fault                       struck  in failing seeds"]
    lines += [f"{fault:27} {struck[fault]:6} {bad[fault]:8}" for fault in FAULTS if struck[fault]]
    lost, twice, broken = (
        sum(len(getattr(outcome.verdict, kind)) for outcome in outcomes)
        for kind in ("lost", "twice", "broken")
    )
    hours = sum(outcome.virtual_s for outcome in outcomes) / 3600
    lines.append(
        f"{len(outcomes)} seeds, {hours:.1f} virtual hours in {took_s:.0f} s: "
        f"{sum(o.jobs for o in outcomes)} jobs, {sum(o.starts for o in outcomes)} tasks started, "
        f"{sum(o.terms for o in outcomes)} terms; {lost} lost, {twice} twice, {broken} broken"
    )
    failing = [str(outcome.seed) for outcome in outcomes if not outcome.verdict.is_good]
    if failing:
        lines.append(f"failing seeds: {' '.join(failing)}")
    return "\n".join(lines)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets is part of what a seed decides.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.sim.run", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
