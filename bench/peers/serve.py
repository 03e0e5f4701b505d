"""Solve models line after line with one solver: `python -m bench.peers.serve SOLVER`.

A request is a line of JSON with `model`, `seconds`, `threads` and `seed`; so is the answer.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from bench.peers.model import Model
from bench.peers.solve import SOLVERS


def main() -> None:
    """Until there is no more line."""
    solve = SOLVERS[sys.argv[1]]
    # What a solver prints by itself must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = solve(Model.of(asked["model"]), asked["seconds"], asked["threads"], asked["seed"])
        print(json.dumps(asdict(answer)), file=answers, flush=True)


if __name__ == "__main__":
    main()
