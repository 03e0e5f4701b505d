"""`mumian-bench openb`: faults of files as golden text, arithmetic, one request as one by one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from mumian_orchestrator.bench.cli import main
from mumian_orchestrator.bench.openb.messages import Objective
from mumian_orchestrator.bench.openb.published import (
    NODES,
    published_allocation,
    workload_of,
    workloads,
)
from mumian_orchestrator.bench.openb.reoptimised import replay_reoptimised
from mumian_orchestrator.bench.openb.replay import (
    Arrivals,
    allocated_percent,
    arrivals,
    capacity_milli,
    place_all,
    replay,
)
from mumian_orchestrator.bench.openb.trace import TraceNode, TraceTask, read_nodes, read_tasks

GOLDEN = Path(__file__).parent / "golden/openb-faults.txt"

NODE_HEADER = "sn,cpu_milli,memory_mib,gpu,model\n"
TASK_HEADER = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"
GOOD_NODES = NODE_HEADER + "n1,8000,8192,2,T4\n"
GOOD_TASKS = TASK_HEADER + "t1,1000,1024,1,500,\n"

NODE_FAULTS: dict[str, str | bytes | None] = {
    "missing file": None,
    "empty": "",
    "header only": NODE_HEADER,
    "missing column": "sn,cpu_milli,gpu,model\nn1,8000,2,T4\n",
    "NaN": NODE_HEADER + "n1,8000,8192,2,T4\nn2,NaN,8192,2,T4\n",
    "negative": NODE_HEADER + "n1,8000,-1,2,T4\n",
    "fraction": NODE_HEADER + "n1,8000.5,8192,2,T4\n",
    "empty value": NODE_HEADER + "n1,8000,8192,,T4\n",
    "other digits": NODE_HEADER + "n1,٣,8192,2,T4\n",
    "too large": NODE_HEADER + "n1,8000,8192,4096,T4\n",
    "row too short": NODE_HEADER + "n1,8000\n",
    "name twice": NODE_HEADER + "n1,8000,8192,2,T4\nn1,8000,8192,2,T4\n",
    "no name": NODE_HEADER + ",8000,8192,2,T4\n",
    "no GPU": NODE_HEADER + "n1,8000,8192,0,\n",
    "not text": b"\x89PNG\r\n\x1a\n\x00",
    "not CSV": "<html>\n<body>hello</body>\n",
    "quote left open": NODE_HEADER + '"n1,8000,8192,2,T4\n',
}
TASK_FAULTS: dict[str, str | bytes | None] = {
    "missing file": None,
    "share of several GPUs": TASK_HEADER + "t1,1000,1024,2,500,\n",
    "share above a whole": TASK_HEADER + "t1,1000,1024,1,1500,\n",
    "GPU without share": TASK_HEADER + "t1,1000,1024,1,0,\n",
    "infinite": TASK_HEADER + "t1,inf,1024,1,500,\n",
    "no GPU asked": TASK_HEADER + "t1,1000,1024,0,0,\n",
    "endless": TASK_HEADER + "t1,0,0,1,1,\n" + "t2,0,0,0,0,\n" * 1000,
}


def run(*arguments: str) -> Result:
    """The command in this process."""
    return CliRunner().invoke(main, ["openb", *arguments])


def fault(folder: Path, option: str, content: str | bytes | None) -> str:
    """What the command says about one bad file beside a good one."""
    files = {"--nodes": folder / "nodes.csv", "--tasks": folder / "tasks.csv"}
    files["--nodes"].write_text(GOOD_NODES)
    files["--tasks"].write_text(GOOD_TASKS)
    if content is None:
        files[option].unlink()
    else:
        files[option].write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run(*(text for name, file in files.items() for text in (name, str(file))))
    assert result.exit_code == 2, result.output
    return result.output.replace(f"{folder}/", "")


def test_every_fault_of_a_file_gives_one_message_as_written(tmp_path: Path) -> None:
    blocks = []
    for option, faults in (("--nodes", NODE_FAULTS), ("--tasks", TASK_FAULTS)):
        for name, content in faults.items():
            blocks.append(f"# {option}: {name}\n{fault(tmp_path, option, content)}")
    text = "\n".join(blocks)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "run with UPDATE_GOLDEN=1 and read the diff"


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    result = run("--nodes", str(tmp_path))
    assert result.exit_code == 2
    assert f"Error: {tmp_path}: is a directory; give a file that can be read\n" in result.output


def test_allocation_is_the_mean_over_the_arrivals_at_a_percent() -> None:
    half, none, share = TraceTask(1, 1, 500), TraceTask(1, 1, 0), TraceTask(1, 1, 4)
    # After each arrival, of 1000: arrived 500, 504, 504, 1004; allocated 500, 504, 504, 504.
    percent = allocated_percent([half, share, none, half], [500, 504, 504, 504], 1000)
    assert percent[0] == percent[49] == 0
    assert percent[50] == pytest.approx((50.0 + 50.4 + 50.4) / 3)
    assert percent[99] == percent[100] == percent[130] == pytest.approx(50.4)


def test_a_hand_made_trace_is_placed_as_far_as_it_fits() -> None:
    nodes = [TraceNode("n1", 2000, 1024, 2, "T4"), TraceNode("n2", 1000, 1024, 0, "")]
    for objective in Objective:
        run_ = replay(nodes, [TraceTask(1000, 512, 1000, ("T4",))], objective, seed=0)
        assert (run_.arrived, run_.placed) == (3, 2)  # 130 % of two GPUs is more than two
        assert run_.allocated_percent[130] == 100
        other_model = replay(nodes, [TraceTask(1000, 512, 1000, ("A10",))], objective, seed=0)
        assert (other_model.arrived, other_model.placed) == (3, 0)


def test_arrivals_stop_at_130_percent_and_follow_the_seed() -> None:
    nodes, tasks = read_nodes(NODES), read_tasks(workloads()[0])
    capacity = capacity_milli(nodes)
    assert capacity == 6_212_000
    for order in Arrivals:
        drawn = arrivals(nodes, tasks, 3, order)
        assert drawn == arrivals(nodes, tasks, 3, order)
        assert drawn != arrivals(nodes, tasks, 4, order)
        demand = sum(task.gpu_milli for task in drawn)
        assert demand - drawn[-1].gpu_milli < 1.3 * capacity <= demand
    listed = arrivals(nodes, tasks, 3, Arrivals.LISTED)
    assert sorted(map(repr, listed[: len(tasks)])) == sorted(map(repr, tasks))


NODE = st.builds(
    TraceNode,
    name=st.just(""),
    cpu_milli=st.integers(0, 16_000),
    memory_mib=st.integers(0, 32_768),
    gpus=st.integers(0, 4),
    model=st.sampled_from(["T4", "G2"]),
)
GPU_MILLI = st.sampled_from([0, 160, 470, 810, 1000, 2000])
MODELS = st.sampled_from([(), ("T4",), ("G2", "T4")])
TASK = st.builds(TraceTask, st.integers(0, 8000), st.integers(0, 16_384), GPU_MILLI, MODELS)


@settings(max_examples=60)
@given(
    nodes=st.lists(NODE, min_size=1, max_size=6),
    tasks=st.lists(TASK, min_size=1, max_size=12),
    objective=st.sampled_from([Objective.PACK, Objective.COST]),
    seed=st.integers(0, 1000),
)
def test_one_request_places_what_one_request_for_each_task_with_its_delta_places(
    nodes: Sequence[TraceNode], tasks: Sequence[TraceTask], objective: Objective, seed: int
) -> None:
    nodes = [TraceNode(f"n{i}", n.cpu_milli, n.memory_mib, n.gpus, n.model) for i, n in enumerate(nodes)]
    nodes.append(TraceNode("last", 4000, 4096, 1, "T4"))
    tasks = [*tasks, TraceTask(1000, 1024, 1000)]
    arriving = arrivals(nodes, tasks, seed, Arrivals.DRAWN)
    together, _ = place_all(nodes, tasks, arriving, objective, seed, one_by_one=False)
    one_by_one, _ = place_all(nodes, tasks, arriving, objective, seed, one_by_one=True)
    assert together == one_by_one


def test_reoptimisation_moves_what_runs_to_make_room_for_what_waits() -> None:
    nodes = [TraceNode(f"n{i}", 64_000, 65_536, 1, "T4") for i in range(20)]
    tasks = [TraceTask(1000, 1024, milli) for milli in (350, 500, 650)]
    seeds = range(10)
    online = [replay(nodes, tasks, Objective.PACK, seed) for seed in seeds]
    reoptimised = [replay_reoptimised(nodes, tasks, seed, every=5) for seed in seeds]
    assert reoptimised == [
        replace(replay_reoptimised(nodes, tasks, run.seed, every=5), seconds=run.seconds)
        for run in reoptimised
    ]
    assert sum(run.moves for run in reoptimised) > 0
    for at in (100, 130):
        assert fmean(run.allocated_percent[at] for run in reoptimised) > fmean(
            run.allocated_percent[at] for run in online
        )


def test_without_an_optimisation_it_is_the_online_replay() -> None:
    nodes, tasks = read_nodes(NODES), read_tasks(workloads()[0])
    online = replay(nodes, tasks, Objective.PACK, seed=0)
    never = replay_reoptimised(nodes, tasks, seed=0, every=10**6)
    assert (never.allocated_percent, never.placed) == (online.allocated_percent, online.placed)
    assert (never.optimisations, never.moves) == (0, 0)


def test_pack_allocates_more_than_the_published_policies_in_every_workload() -> None:
    nodes = read_nodes(NODES)
    for path in workloads():
        published = published_allocation(workload_of(path))
        ours = replay(nodes, read_tasks(path), Objective.PACK, seed=0)
        for at in (100, 130):
            assert ours.allocated_percent[at] > max(values[at] for values in published.values())


def test_the_default_run_prints_lines_beside_the_published_table() -> None:
    result = run("--seeds", "1", "--objective", "pack")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert all(len(line) == 3 and float(line[1]) >= 0 for line in lines)
    names = {line[0] for line in lines}
    assert {"openb_default_allocated_at_130_mumian_pack", "openb_default_mumian_pack_speed"} <= names
    assert "openb_default_allocated_at_100_published_fgd" in names


def test_json_holds_every_seed_and_the_published_table(tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_text(GOOD_NODES)
    (tmp_path / "tasks.csv").write_text(GOOD_TASKS)
    files = ("--nodes", str(tmp_path / "nodes.csv"), "--tasks", str(tmp_path / "tasks.csv"))
    content = json.loads(run(*files, "--seeds", "2", "--output", "json").output)
    assert content["nodes"] == {"file": str(tmp_path / "nodes.csv"), "count": 1, "gpus": 2}
    assert content["tasks"]["workload"] == "tasks"
    assert content["published_gpu_allocated_percent"] == {}
    assert [outcome["objective"] for outcome in content["outcomes"]] == ["pack", "cost", "random"]
    for outcome in content["outcomes"]:
        at_130 = outcome["gpu_allocated_percent"]["130"]
        assert set(at_130) == {"mean", "min", "max", "values"}
        assert at_130["values"] == [100.0, 100.0]
        assert len(outcome["placements_per_second"]["values"]) == 2
        assert [r["seed"] for r in outcome["replays"]] == [0, 1]
        assert all(r["placed_tasks"] == 4 and r["arrived_tasks"] == 6 for r in outcome["replays"])
