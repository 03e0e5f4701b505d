"""`mumian-bench rtt` as a user calls it, on measured matrices."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mumian_orchestrator.bench.cli import main

DATA = Path(__file__).parents[2] / "data/rtt"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["rtt", *arguments])


def test_on_planetlab_coordinates_know_unmeasured_pairs_better_than_published() -> None:
    answer = run(
        str(DATA / "planetlab_490_1.tsv.gz"),
        "--seeds",
        "1",
        "--samples",
        "16",
        "--samples",
        "96",
        "--output",
        "json",
    )
    assert answer.exit_code == 0, answer.output
    document = json.loads(answer.output)
    few, many = document["runs"]
    assert (document["nodes"], few["samples_per_node"], many["samples_per_node"]) == (490, 16, 96)
    assert many["median_relative_error"] < few["median_relative_error"]
    assert many["median_relative_error"] < 0.8 * document["published_vivaldi"]["median_relative_error"]
    assert few["p90_relative_error"] < few["constant_median_relative_error"]
    assert many["within_error_permille"] > 900


def test_where_the_world_is_no_plane_the_error_says_so() -> None:
    answer = run(
        str(DATA / "seattle_99_1.tsv.gz"),
        "--unit",
        "s",
        "--seeds",
        "1",
        "--samples",
        "64",
        "--output",
        "json",
    )
    (only,) = json.loads(answer.output)["runs"]
    assert 0.3 < only["median_relative_error"] < 0.9 * only["constant_median_relative_error"]
    assert only["within_error_permille"] > 900


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    arguments = (str(DATA / "seattle_99_200.tsv.gz"), "--unit", "s", "--seeds", "2", "--samples", "8")
    once, again = run(*arguments, "--output", "json"), run(*arguments, "--output", "json")
    assert once.output == again.output
    first, second = json.loads(once.output)["runs"]
    assert first["median_relative_error"] != second["median_relative_error"]
    assert "rtt_8_median_relative_error" in run(*arguments).output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0\t1\n1\t0\n", "has 2 nodes"),
        (b"0\t1\t2\n1\t0\n2\t1\t0\n", "row 2: 2 numbers in a matrix of 3 nodes"),
        (b"0\t1\t2\n1\t0\tfar\n2\t1\t0\n", "line 2: 'far' is no round-trip time"),
        (b"0\t1\t2\n1\t0\t-3\n2\t1\t0\n", "line 2: '-3' is no round-trip time"),
        (b"0\t1\t2\n1\t0\tinf\n2\t1\t0\n", "line 2: 'inf' is no round-trip time"),
        (b"0\t1\t2\n1\t0\tnan\n2\t1\t0\n", "line 2: 'nan' is no round-trip time"),
        (b"0\t1\t2\n1\t0\t3\n2\t3\t0\n", "every pair of the 3 nodes is measured"),
    ],
)
def test_a_file_that_is_no_matrix_or_leaves_nothing_to_estimate_is_one_message(
    content: bytes, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "bad.tsv"
    file.write_bytes(content)
    answer = run(str(file))
    assert answer.exit_code == 2
    assert message in answer.output


def test_a_damaged_or_missing_file_is_one_message(tmp_path: Path) -> None:
    cut = tmp_path / "cut.tsv.gz"
    cut.write_bytes(gzip.compress(b"0\t1\n" * 1000)[:-9])
    for file, message in ((cut, "is damaged"), (tmp_path / "none.tsv", "No such file")):
        answer = run(str(file))
        assert answer.exit_code == 2
        assert message in answer.output
