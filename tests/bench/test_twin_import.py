"""A recording becomes a scenario that replays it: which task came when, and for how long it ran."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.timestamp_pb2 import Timestamp
from mumian.api.v1.fleet_pb2 import TIER_HUB, Link, Node, Prices, Site, Zone
from mumian.api.v1.job_pb2 import (
    JOB_KIND_GANG,
    JOB_KIND_SERVICE,
    TOPOLOGY_SITE,
    Allocation,
    Job,
    JobSpec,
    LatencySlo,
    TaskGroup,
)
from mumian.api.v1.resources_pb2 import Resources
from mumian_orchestrator.adapters.disk.backup_file import DiskBackupWriter
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.importing import scenario_of
from mumian_orchestrator.bench.sim.recording import Recording, with_jobs_of_backup
from mumian_orchestrator.bench.sim.report.figures import figures
from mumian_orchestrator.bench.sim.runner import Run
from mumian_orchestrator.bench.sim.scenario import read
from mumian_orchestrator.bench.sim.task_groups import written
from mumian_orchestrator.ports.store import Write
from mumian_orchestrator.services.leadership import campaign, leader_key
from mumian_orchestrator.services.store.backup import back_up
from mumian_orchestrator.services.store.fenced import FencedStore

START_S = 1_800_000_000


def at(second: float) -> Timestamp:
    """A moment of the recording."""
    moment = Timestamp()
    moment.FromNanoseconds(round((START_S + second) * 1e9))
    return moment


def job(number: int, created_s: float, ran: list[tuple[float, float | None]], **spec: object) -> Job:
    """A job of one task of 2 cores, with the spans in which it ran; None: it still runs."""
    group = TaskGroup(name="main", count=1, resources=Resources(cpu_milli=2000, memory_mib=1024))
    if spec.pop("has_promise", False):
        group.latency_slo.CopyFrom(LatencySlo(zone_ids=["tianhe"], budget_us=20_000, client_us=9_000))
    allocations = [
        Allocation(id=f"a{number}-{n}", job_id=f"j{number}", task_group="main", start_time=at(begin),
                   end_time=None if end is None else at(end))
        for n, (begin, end) in enumerate(ran)
    ]  # fmt: skip
    for allocation in allocations:
        if allocation.start_time.seconds:
            allocation.create_time.FromNanoseconds(allocation.start_time.ToNanoseconds() - 2_000_000_000)
    return Job(id=f"j{number}", tenant_id="bank", spec=JobSpec(task_groups=[group], priority=50, **spec),  # type: ignore[arg-type]
               create_time=at(created_s), allocations=allocations, update_time=at(created_s))  # fmt: skip


def recording(jobs: list[Job]) -> Recording:
    """Two sites, one of them too far for promises; ended after an hour."""
    prices = Prices(cpu_core_hour_microcny=50_000, energy_kwh_microcny=500_000)
    sites = [Site(id="near", operator_id="op", prices=prices, carbon_g_per_kwh=400),
             Site(id="hub", tier=TIER_HUB, prices=prices)]  # fmt: skip
    sites[0].pue.average_permille = sites[0].pue.marginal_permille = 1300
    nodes = [Node(id=f"{s.id}/n1", site_id=s.id, cpu_milli=8000, memory_mib=32768, core_active_power_mw=5000)
             for s in sites]  # fmt: skip
    links = [Link(from_id="tianhe", to_site_id="near", rtt_p50_us=2000, rtt_p99_us=3000)]
    return Recording("a test", START_S + 3600, sites, nodes, [Zone(id="tianhe")], links, jobs)


def the_class(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The only class of jobs."""
    [found] = raw["jobs"]
    return dict(found)


def test_tasks_come_when_they_came_and_run_as_long_as_they_ran() -> None:
    imported = scenario_of(
        recording([
            job(1, 0, [(5, 65)]),
            job(2, 600, [(610, 620), (630, 650)]),  # restarted: both spans count
            job(3, 1800, [(1801, None)]),  # still runs
            job(4, 2000, []),  # never started: as long as its like, on average
        ]),
        "replay", tick_s=10,
    )  # fmt: skip
    of_bank = the_class(imported.raw)
    assert of_bank["arrivals"]["at_s"] == [0, 600, 1800, 2000]
    assert of_bank["arrivals"]["run_s"] == [60, 30, 1799, 629.667]
    assert of_bank["start_s"] == 2, "from its place to its first second of work"
    assert imported.left_out == ()
    scenario = read(yaml.safe_load(yaml.safe_dump(imported.raw)))
    found = figures(Run(scenario, readings=0).simulate(0))
    assert (found["arrived"], found["starts"], found["waiting_at_end"]) == (4, 4, 0)
    # 2 cores x 5 W for 60 + 30 + 1600 + 629 s or so, half a tick aside.
    assert found["it_kwh"] == pytest.approx(2 * 5 * (60 + 30 + 1790 + 629.667) / 3.6e6, abs=0.001)


def test_a_replay_of_the_last_hours_begins_with_what_ran_then() -> None:
    raw = scenario_of(
        recording([job(1, 0, [(0, 100)]), job(2, 10, [(10, 2000)]), job(3, 1900, [(1900, 1950)])]),
        "replay", 10, from_unix_s=START_S + 1800,
    ).raw  # fmt: skip
    of_bank = the_class(raw)
    assert of_bank["arrivals"] == {"at_s": [0, 100], "run_s": [200, 50]}
    assert raw["duration_h"] == 0.5


def test_promises_sites_and_what_nobody_measured_are_kept() -> None:
    raw = scenario_of(recording([job(1, 0, [(5, 65)], has_promise=True)]), "replay", 10).raw
    scenario = read(raw)
    [group] = scenario.jobs[0].groups
    assert (group.slo_budget_us, group.client_us) == (20_000, 9_000)
    assert scenario.links_rtt_p99_us == {("tianhe", "near"): 3000, ("tianhe", "hub"): 10_000_000}
    assert (scenario.sites[0].pue_permille, scenario.sites[1].pue_permille) == (1300, 1000)
    assert all(source.kind in ("recorded", "assumed") for source in scenario.sources)
    assert figures(Run(scenario, readings=0).simulate(0))["sites"]["hub"]["meter_kwh"] == 0  # type: ignore[index]


def test_what_the_twin_cannot_replay_is_told() -> None:
    of_china = job(1, 0, [(0, 10)], jurisdictions=["CN"])
    thrifty = job(2, 0, [(0, 5)], kind=JOB_KIND_SERVICE, rent_max_microcny_per_hour=1)
    imported = scenario_of(recording([of_china, thrifty]), "replay", 10)
    told, ceiling = imported.left_out
    assert ceiling == "1 jobs have a rent ceiling; it is left out"
    assert told.startswith("1 jobs are left out: jurisdictions ('CN') is unknown"), "no site is in China"
    assert [job_class["movable"] for job_class in imported.raw["jobs"]] == [1]  # type: ignore[attr-defined]


def test_what_a_job_asks_of_sites_and_nodes_is_replayed() -> None:
    wished = job(1, 0, [(0, 10)], jurisdictions=["CN"], operators_denied=["op"], pue_max_permille=1500)
    group = wished.spec.task_groups[0]
    group.archs.append("arm64")
    group.labels["disk"] = "nvme"
    group.latency_slo.CopyFrom(
        LatencySlo(zone_ids=["tianhe"], budget_us=9000, soft_microcny_per_ms_hour=2_000_000)
    )
    group.compute_time.by_arch_us["arm64"] = 3000
    recorded = recording([wished])
    recorded.sites[1].jurisdiction, recorded.nodes[1].arch = "CN-GD", "arm64"
    recorded.nodes[1].labels["disk"] = "nvme"
    imported = scenario_of(recorded, "replay", 10)
    assert imported.left_out == ()
    scenario = read(imported.raw)
    [job_class] = scenario.jobs
    assert (job_class.jurisdictions, job_class.operators_denied) == (("CN",), ("op",))
    assert job_class.pue_max_permille == 1500
    assert written(job_class.groups[0]) == {
        "name": "main", "count": 1, "cpu_milli": 2000, "memory_mib": 1024, "archs": ["arm64"],
        "labels": {"disk": "nvme"}, "slo_budget_ms": 9, "soft_cny_per_ms_hour": 2,
        "compute_ms_by_arch": {"arm64": 3},
    }  # fmt: skip
    made = Run(scenario, readings=0).simulate(0, keeps_placements=True)
    assert [placed.site_id for placed in made.placements] == ["hub"]


def test_a_gang_with_limits_is_replayed_whole() -> None:
    gang = job(1, 0, [(0, 10)], kind=JOB_KIND_GANG)
    workers = gang.spec.task_groups[0]
    workers.count = 2
    workers.spreads.add(topology=TOPOLOGY_SITE, max_tasks=1)
    workers.zone_traffic.add(zone_id="tianhe", bandwidth_kbps=5000)
    gang.allocations.add(task_group="main", task_index=1, start_time=at(0), end_time=at(20))
    imported = scenario_of(recording([gang]), "replay", 10)
    assert imported.left_out == ()
    of_bank = the_class(imported.raw)
    assert of_bank["arrivals"]["run_s"] == [20], "as long as the longest of its tasks"
    run = Run(read(imported.raw), readings=0).simulate(0, keeps_placements=True)
    assert sorted(placed.site_id for placed in run.placements) == ["hub", "near"]


async def test_jobs_of_a_backup_file_take_the_place_of_those_of_the_coordinator(tmp_path: Path) -> None:
    stored = job(7, 30, [(40, 50)])
    kv, prefix = MemoryKeyValue(MemoryCluster()), "/mumian/"
    store = FencedStore(kv, prefix, await campaign(kv, leader_key(prefix), "test", 60))
    await store.load()
    writes = [Write(f"allocations/{a.id}", a.SerializeToString()) for a in stored.allocations]
    stored.ClearField("allocations")
    await store.commit([*writes, Write("jobs/j7", stored.SerializeToString())])
    await back_up(kv, prefix, DiskBackupWriter(tmp_path / "backup"), VirtualClock())
    found = with_jobs_of_backup(recording([job(1, 0, [(0, 5)])]), tmp_path / "backup")
    assert [(j.id, len(j.allocations)) for j in found.jobs] == [("j7", 1)]


def test_an_empty_recording_is_refused() -> None:
    with pytest.raises(ScenarioError, match="has no jobs"):
        scenario_of(recording([]), "replay", 10)
