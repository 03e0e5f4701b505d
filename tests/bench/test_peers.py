"""The solvers that we compare with get the right model: their optimum is that of trying everything."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from mumian_core import Engine
from mumian_orchestrator.bench.sim.report.figures import figures
from mumian_orchestrator.bench.sim.runner import Run
from mumian_orchestrator.bench.sim.scenario import read

from bench.global_placement.instance import Size, generate
from bench.global_placement.pairs import ask_engine
from bench.global_placement.peers import PYTHON, SOLVERS, model_of, run_peer
from bench.peers.model import Model
from bench.report import ROOT
from tests.bench.exhaustive import optimum

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="the solvers are installed by `make peers`")


def random_model(seed: int) -> Model:
    """Three kinds on three nodes of two classes, so tight that some have no solution."""
    rng = Random(seed)
    return Model(
        kind_counts=tuple(rng.randint(1, 3) for _ in range(3)),
        kind_demands=tuple((rng.randint(1, 4), rng.randint(1, 4), rng.randint(0, 1)) for _ in range(3)),
        node_capacities=tuple((rng.randint(5, 9), rng.randint(5, 9), rng.randint(0, 3)) for _ in range(3)),
        node_classes=(0, 1, 0),
        costs=tuple(tuple(rng.choice([None, *range(1, 40)]) for _ in range(2)) for _ in range(3)),
    )


def answer_of(solver: str, model: Model, folder: Path) -> dict[str, Any]:
    (folder / "model.json").write_text(json.dumps(asdict(model)))
    files = [str(folder / "model.json"), str(folder / "answer.json")]
    command = [str(PYTHON), "-m", "bench.peers.solve", solver, *files, "--seconds=30", "--threads=1"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answer


# The first has no solution.
@pytest.mark.parametrize("seed", [0, 2, 3, 4, 6])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_finds_the_optimum_that_trying_everything_finds(
    solver: str, seed: int, tmp_path: Path
) -> None:
    model = random_model(seed)
    answer = answer_of(solver, model, tmp_path)
    least = optimum(model)
    assert answer["objective"] == least
    assert answer["status"] == ("infeasible" if least is None else "optimal")
    if least is not None:
        assert round(answer["bound"]) == least
        assert answer["trace"][-1][1] == least


@pytest.mark.parametrize("solver", SOLVERS)
def test_on_an_instance_of_the_engine_a_solver_finds_the_optimum_and_the_engine_accepts_it(
    solver: str,
) -> None:
    instance = generate(Size(8, 4), 3)
    table = ask_engine(instance)
    model = Model.of(model_of(instance, table))
    engine = Engine()
    engine.apply(instance.delta.SerializeToString())
    run = run_peer(solver, instance, table, engine.snapshot(), seconds=30, threads=1)
    assert run.accepted
    assert run.objective == run.bound == optimum(model)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_as_a_policy_of_the_twin_is_accepted_by_the_verifier_and_costs_no_more_than_ours(
    solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    raw = yaml.safe_load((ROOT / "bench/scenarios/small.yaml").read_text())
    raw.update(events=[], duration_h=0.5)
    for job in raw["jobs"]:  # all at once, so that placing them jointly is the whole question
        job["arrivals"] = {"at_s": [0] * 12}
    found = {
        name: figures(Run(read(raw), name, readings=1).simulate(1)) for name in ("ours-reoptimised", solver)
    }
    for name, figure in found.items():
        assert (figure["arrived"], figure["waiting_at_end"]) == (24, 0), name
    assert found[solver]["cny"] <= found["ours-reoptimised"]["cny"]  # type: ignore[operator]
    assert found[solver]["gap_to_bound"] < 0.01  # type: ignore[operator]
