"""`make faults`: every fault for some rounds, and a table. A line of the table is replayed by
`python -m tests.faults.run --fault FAULT --seed SEED --rounds 1`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.faults.rounds import FAULTS
from tests.faults.suite import Outcome, suite
from tests.oracle.history import History

HISTORIES = Path(__file__).resolve().parents[2] / "bench/results/faults"


def main() -> int:
    """Run what was asked for; 1 if anything was lost, done twice or broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", choices=FAULTS, action="append", help="default: every one")
    parser.add_argument("--rounds", type=int, default=5, help="of each fault")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of the first round")
    parser.add_argument("--coordinators", type=int, default=3)
    parser.add_argument("--lease-ttl-s", type=int, default=5)
    asked = parser.parse_args()
    HISTORIES.mkdir(parents=True, exist_ok=True)
    outcomes = asyncio.run(_run(asked))
    print(table(outcomes))
    return 0 if all(outcome.verdict.is_good for outcome in outcomes) else 1


async def _run(asked: argparse.Namespace) -> list[Outcome]:
    history = History(HISTORIES / f"{asked.seed}.jsonl")
    print(f"seed {asked.seed}; history in {history.path}", flush=True)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="mumian-faults-") as folder:
        async with suite(Path(folder), history, asked.coordinators, asked.lease_ttl_s) as city:
            for fault in asked.fault or FAULTS:
                for number in range(asked.rounds):
                    outcome = await city.round(fault, asked.seed + number)
                    outcomes.append(outcome)
                    if not outcome.verdict.is_good:
                        print(f"{fault}, seed {outcome.seed}:\n{outcome.verdict}", file=sys.stderr)
    history.close()
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """One line a fault."""
    lines = ["fault                       rounds  lost  twice  broken  recovery p50, s  worst, s"]
    for fault in dict.fromkeys(outcome.fault for outcome in outcomes):
        of_it = [outcome for outcome in outcomes if outcome.fault == fault]
        times_s = [outcome.recovery_s for outcome in of_it]
        lost, twice, broken = (
            sum(len(getattr(outcome.verdict, kind)) for outcome in of_it)
            for kind in ("lost", "twice", "broken")
        )
        lines.append(
            f"{fault:27} {len(of_it):6} {lost:5} {twice:6} {broken:7} "
            f"{median(times_s):16.2f} {max(times_s):9.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
