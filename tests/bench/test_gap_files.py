"""Files of generalized assignment instances: those in the format, and what is said of those that are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mumian_orchestrator.bench.gap.best_known import best_known_of
from mumian_orchestrator.bench.gap.orlib import GapFileError, read_instances

DATA = Path(__file__).parents[2] / "data/gap"
GOLDEN = Path(__file__).with_name("golden") / "gap-files.txt"

FAULTS = {
    "empty": b"",
    "only-blanks": b" \n \n",
    "binary": b"1 1\n\x1f\x8b\x08",
    "word": b"2 2\n1 2\n3 four\n1 1\n1 1\n2 2\n",
    "fraction": b"1 2\n1.5 2\n1 1\n2\n",
    "underscore": b"1 2\n1_000 2\n1 1\n2\n",
    "negative-cost": b"1 2\n1 -2\n1 1\n2\n",
    "overflow": b"1 2\n1 99999999999999999999\n1 1\n2\n",
    "no-agents": b"0 2\n1 2\n",
    "too-large": b"100000 100000\n1 2\n",
    "only-one-number": b"5\n",
    "cut-off-in-costs": b"2 3\n1 2 3\n4\n",
    "cut-off-in-weights": b"2 2\n1 2\n3 4\n5 6\n",
    "cut-off-in-capacities": b"2 2\n1 2\n3 4\n5 6\n7 8\n9\n",
    "too-long": b"2 2\n1 2\n3 4\n5 6\n7 8\n9 9\n10 11\n",
    "fault-in-the-second-of-two": b"2\n1 2\n1 2\n3 4\n5\n1 2\n1 2\n3 x\n5\n",
    "second-of-two-is-cut-off": b"2\n" + b"1 20\n" + b"7 " * 41 + b"\n1 20\n" + b"7 " * 30 + b"\n",
}


def test_what_is_said_of_a_file_that_is_not_in_the_format(tmp_path: Path) -> None:
    said = []
    for name, content in FAULTS.items():
        file = tmp_path / f"{name}.txt"
        file.write_bytes(content)
        with pytest.raises(GapFileError) as refused:
            read_instances(file)
        said.append(str(refused.value).removeprefix(f"{tmp_path}/"))
    with pytest.raises(GapFileError) as refused:
        read_instances(tmp_path / "missing.txt")
    said.append(str(refused.value).removeprefix(f"{tmp_path}/"))
    text = "\n".join(said) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_every_instance_at_hand_is_read_and_has_a_best_known_cost() -> None:
    best_known = best_known_of(DATA)
    files = [DATA / name for name in best_known]
    instances = [instance for file in files for instance in read_instances(file)]
    assert len(instances) == 17
    # A name says the type, two digits of agents and the number of jobs.
    assert {i.name[1:] for i in instances} == {f"{i.agents:02}{i.jobs}" for i in instances}
    for instance in instances:
        assert len(instance.cost) == len(instance.weight) == instance.agents * instance.jobs
        assert len(instance.capacity) == instance.agents


def test_a_file_may_hold_several_instances_and_line_breaks_mean_nothing(tmp_path: Path) -> None:
    file = tmp_path / "gap1"
    file.write_text("2 1 2\n\n10 20 3\n4 7 2 1 1 2 3 4 5 6")
    first, second = read_instances(file)
    assert (first.name, first.cost, first.weight, first.capacity) == ("gap1-1", [10, 20], [3, 4], [7])
    assert (second.name, second.agents, second.jobs, second.capacity) == ("gap1-2", 2, 1, [5, 6])


def test_a_list_of_best_known_costs_with_a_wrong_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best_known.csv").write_text("instance,best_known_value\na,17\nb,many\n")
    with pytest.raises(
        GapFileError, match=r"best_known\.csv, line 3: instance 'b' has best_known_value 'many'"
    ):
        best_known_of(tmp_path)
