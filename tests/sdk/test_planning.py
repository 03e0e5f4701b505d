"""`mumian optimize` and `mumian what-if` as an operator sees them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from mumian.api.v1 import explanation_pb2
from mumian.api.v1.planning_pb2 import Arrangement, SitePrice, SiteShare

from tests.sdk.scripted_coordinator import ScriptedCoordinator

GOLDEN = Path(__file__).parent / "golden"


def arrangement(
    placed: int, unplaced: int, cny: float, gap_ppm: int | None = None, **more: Any
) -> Arrangement:
    """So many tasks for so much money, all at one site."""
    microcny = int(cny * 1e6)
    share = SiteShare(
        site_id="gz-nansha",
        task_count=placed,
        cost_microcny_per_hour=microcny,
        facility_power_mw=placed * 5_000_000,
    )
    made = Arrangement(
        placed_task_count=placed,
        unplaced_task_count=unplaced,
        cost_microcny_per_hour=microcny,
        sites=[share],
        **more,
    )
    if gap_ppm is not None:
        made.proof.gap_ppm = gap_ppm
        made.proof.bound_microcny_per_hour = microcny - microcny * gap_ppm // 10**6
    return made


def shows(out: str, name: str) -> None:
    """The output is that of the golden file; MUMIAN_GOLDEN_UPDATE=1 rewrites it."""
    path = GOLDEN / f"{name}.screen"
    told = "".join(f"{line.rstrip()}\n" for line in out.splitlines())
    if os.environ.get("MUMIAN_GOLDEN_UPDATE"):
        path.write_text(told)
    assert told == path.read_text()
    assert all(len(line) <= 100 for line in told.splitlines())


def test_optimize_shows_what_moves_and_how_good_it_is_then(
    mumian: Any, coordinator: ScriptedCoordinator
) -> None:
    answer = coordinator.optimized
    answer.as_it_runs.CopyFrom(arrangement(12, 0, 9.25))
    answer.found.CopyFrom(arrangement(12, 0, 8.5, gap_ppm=4200, moved_task_count=2))
    for resource, saves in (("cpu", 120_000), ("memory", 900), ("H100", 5_400_000)):
        price = SitePrice(site_id="gz-nansha", resource=resource, saves_microcny_per_hour=saves)
        answer.found.proof.prices.append(price)
    answer.moves.add(
        allocation_id="web-1.main.0",
        job_id="web-1",
        from_node_id="gz-tianhe/n1",
        to_node_id="gz-nansha/n1",
        saves_microcny_per_hour=800_000,
    )
    answer.moves.add(
        allocation_id="vr-2.main.0",
        job_id="vr-2",
        from_node_id="gz-nansha/n1",
        to_node_id="gz-tianhe/n1",
        saves_microcny_per_hour=-50_000,
        held_back="there is no room for it beside what runs: something would have to stop first",
    )
    shows(mumian("optimize", "--dry-run", "--moves", "5", "--time-limit", "2s").out, "optimize")
    request = coordinator.requests("OptimizeFleet")[0]
    assert (request.dry_run, request.moves_max, request.time_limit_ms) == (True, 5, 2000)
    as_json = mumian("optimize", "-o", "json").json
    assert as_json["moves"][1]["held_back"]
    assert not coordinator.requests("OptimizeFleet")[1].dry_run
    del answer.moves[:]
    assert "nothing moves" in mumian("optimize").out


def test_what_if_shows_the_difference_and_who_is_driven_out(
    mumian: Any, coordinator: ScriptedCoordinator
) -> None:
    answer = coordinator.supposed
    answer.as_it_runs.CopyFrom(arrangement(12, 0, 9.25))
    answer.best_before.CopyFrom(arrangement(12, 0, 8.5, gap_ppm=0))
    answer.left_alone.CopyFrom(arrangement(9, 3, 7, broken_promise_count=1))
    answer.best_after.CopyFrom(arrangement(11, 1, 10.75, gap_ppm=15_000, moved_task_count=3))
    price = SitePrice(site_id="gz-nansha", resource="cpu", saves_microcny_per_hour=140_000_000)
    answer.best_after.proof.prices.append(price)
    task = answer.affected.add(job_id="web-1", task_group="main", node_id="gz-tianhe/n1")
    task.to_node_id = "gz-nansha/n1"
    answer.affected.add(job_id="train-3", task_group="main", task_index=1, node_id="gz-tianhe/n1")
    broken = answer.affected.add(job_id="vr-2", task_group="main", node_id="gz-nansha/n1")
    broken.broken.filter = explanation_pb2.FILTER_LATENCY_SLO
    broken.broken.reason = "23.4 ms > 20 ms, 3.4 over: network"
    shows(mumian("what-if", "--lose", "gz-tianhe").out, "what_if")
    assert (
        mumian("what-if", "--lose", "gz-tianhe", "-o", "json").json["best_after"]["unplaced_task_count"] == 1
    )


@pytest.mark.parametrize(("waiting", "told"), [(0, "no site is short of anything"), (2, "--add-nodes")])
def test_without_prices_the_fleet_is_said_to_be_large_enough_only_where_nobody_waits(
    mumian: Any, coordinator: ScriptedCoordinator, waiting: int, told: str
) -> None:
    coordinator.supposed.best_after.CopyFrom(arrangement(12, waiting, 8.5, gap_ppm=0))
    assert told in mumian("what-if", "--lose", "gz-tianhe").out


@pytest.mark.parametrize("left_out", [{}, {"broken_promise_count": 1}, {"unplaced": 1}])
def test_nothing_is_said_to_be_proven_where_the_bound_counts_more_than_money(
    mumian: Any, coordinator: ScriptedCoordinator, left_out: dict[str, int]
) -> None:
    best = arrangement(12, left_out.pop("unplaced", 0), 8.5, gap_ppm=0, **left_out)
    coordinator.supposed.best_after.CopyFrom(best)
    is_money = not (best.unplaced_task_count or best.broken_promise_count)
    assert ("proven: no arrangement" in mumian("what-if", "--lose", "gz-tianhe").out) == is_money


def test_every_change_has_its_option(mumian: Any, coordinator: ScriptedCoordinator) -> None:
    run = mumian(
        *("what-if", "-o", "json", "--drain", "a", "--drain", "b", "--lose", "c", "--add-nodes", "a/n1=4"),
        *("--pue", "a=1.2", "--pue", "b=1.3/1.15", "--price", "a.energy=0.45", "--price", "a.H100=0"),
        *("--rtt", "tianhe:a=8ms", "--bandwidth", "tianhe:a=10Gbit/s", "--moves", "0"),
        *("--slo", "vr-1=30ms", "--add-site", "west=a"),
    )
    assert run.code == 0
    (request,) = coordinator.requests("WhatIf")
    assert (request.HasField("moves_max"), request.moves_max, request.time_limit_ms) == (True, 0, 1000)
    told = [" ".join(str(change).split()) for change in request.changes]
    assert told == [
        'add_site { like_site_id: "a" site_id: "west" }',
        'drain_site_id: "a"',
        'drain_site_id: "b"',
        'lose_site_id: "c"',
        'add_nodes { like_node_id: "a/n1" count: 4 }',
        'set_pue { site_id: "a" average_permille: 1200 }',
        'set_pue { site_id: "b" average_permille: 1300 marginal_permille: 1150 }',
        'set_price { site_id: "a" what: "energy" microcny: 450000 }',
        'set_price { site_id: "a" what: "H100" }',
        'set_link { from_id: "tianhe" to_site_id: "a" rtt_p99_us: 8000 }',
        'set_link { from_id: "tianhe" to_site_id: "a" bandwidth_kbps: 10000000 }',
        'set_slo { job_id: "vr-1" budget_us: 30000 }',
    ]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "no change is given; add one of --drain, --lose, --add-site, --add-nodes"),
        (["--add-nodes", "a/n1"], "(a/n1) must be NODE=COUNT"),
        (["--pue", "a=0.9"], "(a=0.9) must be at least 1.0"),
        (["--rtt", "tianhe:a=8"], "(tianhe:a=8) must be a duration with its unit"),
        (["--price", "a=1"], "(a=1) must be SITE.WHAT=CNY"),
        (["--add-site", "west"], "(west) must be NEW=SITE"),
        (["--slo", "vr-1=30"], "(vr-1=30) must be a duration with its unit"),
        (["--drain", "a", "--time-limit", "1m"], "--time-limit (60000 ms) must be at most 5s"),
    ],
)
def test_a_change_that_is_badly_written_is_refused_with_advice(
    mumian: Any, argv: list[str], said: str
) -> None:
    run = mumian("what-if", *argv)
    assert run.code == 2
    assert said in run.err
