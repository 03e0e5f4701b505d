"""`mumian-bench gap` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mumian_orchestrator.bench.cli import main

DATA = Path(__file__).parents[2] / "data/gap"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["gap", *arguments])


def test_the_figures_of_an_instance_come_as_lines_and_as_json() -> None:
    arguments = (str(DATA / "c05100"), "--seconds", "0.5", "--threads", "1")
    lines = run(*arguments)
    assert lines.exit_code == 0, lines.output
    figures = {name: (float(value), unit) for name, value, unit in map(str.split, lines.output.splitlines())}
    assert figures["gap_c05100_best_known"] == (1931, "cost")
    assert figures["gap_c05100_bound"][0] <= 1931 <= figures["gap_c05100_cost"][0]

    document = run(*arguments, "--output", "json")
    assert document.exit_code == 0, document.output
    (result,) = json.loads(document.output)["instances"]
    assert result["instance"] == "c05100"
    assert result["bound"] <= 1931 <= result["cost"]
    assert result["gap_to_best_known_percent"] == pytest.approx(100 * (result["cost"] - 1931) / 1931)


def test_an_instance_that_nobody_has_listed_has_no_best_known_cost(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("2 3\n1 2 3\n3 2 1\n1 1 1\n1 1 1\n2 2\n")
    (result,) = json.loads(run(str(file), "--seconds", "0.1", "--output", "json").output)["instances"]
    assert (result["cost"], result["bound"], result["best_known"]) == (4, 4, None)


def test_bad_input_is_one_message_and_nothing_is_solved(tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("2 2\n1 2\n3 four\n1 1\n1 1\n2 2\n")
    answer = run(str(DATA / "c05100"), str(bad), "--seconds", "600")
    assert answer.exit_code == 2
    assert (
        answer.output
        == f"Error: {bad}, line 3: 'four' stands where one of the costs should; give a whole number\n"
    )


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "ten"])
def test_a_time_that_is_none_is_refused(seconds: str) -> None:
    answer = run(str(DATA / "c05100"), "--seconds", seconds)
    assert answer.exit_code == 2
    assert "--seconds" in answer.output
