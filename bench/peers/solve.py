"""Solve one model file with one solver into an answer file: `python -m bench.peers.solve`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from bench.peers import cp_sat, highs
from bench.peers.model import Model

SOLVERS = {"cp-sat": cp_sat.solve, "highs": highs.solve}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("solver", choices=SOLVERS)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("answer", type=Path)
    arguments.add_argument("--seconds", type=float, required=True)
    arguments.add_argument("--threads", type=int, required=True)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    model = Model.of(json.loads(given.model.read_text()))
    answer = SOLVERS[given.solver](model, given.seconds, given.threads, given.seed)
    given.answer.write_text(json.dumps(asdict(answer)))


if __name__ == "__main__":
    main()
