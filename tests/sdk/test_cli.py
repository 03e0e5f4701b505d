"""The command line as a user sees it: what it prints, and its exit codes."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import grpc
from mumian.api.v1 import explanation_pb2, fleet_pb2, job_event_pb2, job_pb2
from mumian.api.v1.explanation_pb2 import Explanation
from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_pb2 import Job
from mumian.api.v1.job_service_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT, ReadLogsResponse

from tests.sdk.scripted_coordinator import ScriptedCoordinator, refusal

WIDTH_MAX = 100


def job_event() -> JobEvent:
    """A task of a job runs."""
    made = JobEvent(sequence=3, kind=job_event_pb2.JOB_EVENT_KIND_REPORTED, job=job(RUNNING))
    made.job.allocations.add(id="hello-1.main.0", state=job_pb2.ALLOCATION_STATE_RUNNING)
    made.changed_allocation_ids.append("hello-1.main.0")
    return made


def explanation(placed: int = 1) -> Explanation:
    """Three sites: one fits (and is chosen), one is too slow, one is not measured."""
    made = Explanation(task_group="main", task_count=1, placed_task_count=placed, nodes_considered=3)
    sites = (("gz-nansha", 4000, 5000, 1250), ("sg-hub", 18000, 5000, 1120), ("gz-tianhe", 0, 10000, 1350))
    for site_id, rtt_us, compute_us, pue_permille in sites:
        site = made.sites.add(site_id=site_id, node_count=1, pue_average_permille=pue_permille)
        site.latency.zone_id = "tianhe"
        site.latency.rtt_p99_us, site.latency.compute_us, site.latency.client_us = rtt_us, compute_us, 9400
        site.latency.total_us, site.latency.budget_us = rtt_us + compute_us + 9400, 20000
        site.latency.link_known = rtt_us > 0
        site.cost.total_microcny_per_hour = 1_234_567
    made.sites[0].chosen_task_count = placed
    made.sites[1].rejection.filter = explanation_pb2.FILTER_LATENCY_SLO
    made.sites[1].rejection.reason = "32.4 ms > 20 ms, 12.4 over: network"
    made.sites[2].rejection.filter = explanation_pb2.FILTER_LATENCY_SLO
    made.sites[2].rejection.reason = "nobody has measured the link from zone tianhe"
    made.rejections.add(filter=explanation_pb2.FILTER_LATENCY_SLO, node_count=2)
    if not placed:
        relaxation = made.relaxation
        relaxation.filter = explanation_pb2.FILTER_LATENCY_SLO
        relaxation.field = "task_groups[0].latency_slo.budget_us"
        relaxation.to, relaxation.site_id = "24 ms", "gz-nansha"
        setattr(relaxation, "from", "20 ms")
    return made


def job(state: job_pb2.JobState.ValueType, *explanations: Explanation, **fields: Any) -> Job:
    """A job of one group."""
    made = Job(id="hello-1", tenant_id="default", state=state, explanations=explanations, **fields)
    made.spec.task_groups.add(name="main", count=1)
    return made


PENDING, STARTING = job_pb2.JOB_STATE_PENDING, job_pb2.JOB_STATE_STARTING
RUNNING, FAILED = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_FAILED


def test_submit_shows_the_sites_with_the_chosen_one_marked_and_the_next_commands(
    mumian: Any, coordinator: ScriptedCoordinator, hello: str
) -> None:
    coordinator.watched = [
        job(PENDING),
        job(job_pb2.JOB_STATE_STARTING, explanation()),
        job(RUNNING, explanation()),
    ]
    run = mumian("submit", hello)
    assert run.code == 0
    lines = run.out.splitlines()
    assert all(len(line) <= WIDTH_MAX for line in lines)
    chosen = next(line for line in lines if "CHOSEN" in line)
    assert chosen.split() == ["▶", "gz-nansha", "4.0", "5.0", "18.4", "1.25", "1.235", "CHOSEN"]
    assert "32.4 ms > 20 ms, 12.4 over" in next(line for line in lines if "sg-hub" in line)
    assert run.out.count("gz-nansha") == 1, "the table is printed once"
    assert "running after" in run.out
    for verb in ("status", "logs -f", "cancel"):
        assert f"  mumian {verb} hello-00000000" in lines


def test_submit_of_a_job_without_a_place_says_why_and_what_would_help(
    mumian: Any, coordinator: ScriptedCoordinator, hello: str
) -> None:
    coordinator.watched = [job(PENDING), job(PENDING, explanation(placed=0))]
    run = mumian("submit", hello)
    assert run.code == 1
    assert "it stays pending" in run.out
    assert run.err == (
        "mumian: NO_PLACE: 1 task of group main has no place: refused by latency 2 nodes; "
        "it would fit with latency.budget 24 ms instead of 20 ms at site gz-nansha\n"
    )
    as_json = mumian("submit", hello, "-o", "json")
    assert (as_json.code, as_json.json["state"]) == (1, "JOB_STATE_PENDING")
    assert json.loads(as_json.err)["error"]["reason"] == "NO_PLACE"


def test_an_estimate_is_shown_as_one_and_what_would_help_is_told_by_its_key(
    mumian: Any, coordinator: ScriptedCoordinator, hello: str
) -> None:
    told = explanation(placed=0)
    far = next(site for site in told.sites if site.latency.link_known)
    far.latency.rtt_error_us = 1000
    told.relaxation.field = "task_groups[0].latency_slo.measured_only"
    setattr(told.relaxation, "from", "true")
    told.relaxation.to = "false"
    coordinator.watched = [job(PENDING), job(PENDING, told)]
    run = mumian("submit", hello)
    assert "it would fit with latency.measured_only false instead of true" in run.err
    line = next(line for line in run.out.splitlines() if far.site_id in line)
    assert line.split()[1].startswith("~")


def test_submit_wait_stays_to_the_end_and_fails_with_the_job(
    mumian: Any, coordinator: ScriptedCoordinator, hello: str
) -> None:
    coordinator.watched = [
        job(RUNNING, explanation()),
        job(FAILED, explanation(), state_message="exit code 3"),
    ]
    run = mumian("submit", "--wait", hello)
    assert run.code == 1
    assert "failed after" in run.out
    assert "exit code 3" in run.out


def test_submit_gives_programs_one_job(mumian: Any, coordinator: ScriptedCoordinator, hello: str) -> None:
    coordinator.watched = [job(RUNNING, explanation())]
    run = mumian("submit", hello, "--request-id", "mine", "--output", "json")
    assert (run.json["state"], run.json["tenant_id"]) == ("JOB_STATE_RUNNING", "default")
    assert coordinator.requests("CreateJob")[0].request_id == "mine"


def test_plan_shows_the_same_table_and_makes_no_job(
    mumian: Any, coordinator: ScriptedCoordinator, hello: str
) -> None:
    coordinator.planned.explanations.append(explanation())
    task = coordinator.planned.tasks.add(task_group="main", site_id="gz-nansha")
    task.cost.total_microcny_per_hour = 1_234_567
    run = mumian("plan", hello)
    assert run.code == 0
    assert "CHOSEN" in run.out
    assert "1 task for 1.235 CNY/h" in run.out
    assert not coordinator.requests("CreateJob")
    assert mumian("-o", "json", "plan", hello).json["explanations"][0]["task_group"] == "main"
    coordinator.planned.explanations[0].CopyFrom(explanation(placed=0))
    coordinator.planned.ClearField("tasks")
    refused = mumian("plan", hello)
    assert refused.code == 1
    assert refused.err.startswith("mumian: NO_PLACE: 1 task of group main has no place")
    assert "CNY/h, " not in refused.out
    assert "mumian submit" not in refused.out, "nobody is told to submit what has no place"


def test_a_fault_that_only_the_coordinator_sees_is_shown_at_its_line(
    mumian: Any, coordinator: ScriptedCoordinator, hello: str
) -> None:
    fields = [("task_groups[0].latency_slo.zone_ids", "('tianhe') is unknown")]
    message = "task_groups[0].latency_slo.zone_ids ('tianhe') is unknown; known zones: nansha"
    coordinator.refuse(
        "CreateJob", refusal(grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_ZONE", message, fields)
    )
    run = mumian("submit", hello)
    assert run.code == 2
    assert run.err.splitlines() == [
        "mumian: UNKNOWN_ZONE",
        f"{hello}:2: latency.from ('tianhe') is unknown",
        "known zones: nansha",
    ]


def deferred() -> Explanation:
    """The one task waits until 02:00 of some day in the past, by this machine's clock."""
    made = explanation(placed=0)
    made.ClearField("relaxation")
    made.deferred_task_count = 1
    made.deferred_to_unix_s = int(time.mktime((2026, 1, 5, 2, 0, 0, 0, 0, -1)))
    made.deferral_saves_microcny = 1_200_000
    return made


def test_a_job_that_waits_for_a_cheaper_hour_says_until_when_and_what_it_saves(
    mumian: Any, coordinator: ScriptedCoordinator, hello: str
) -> None:
    told = "1 task of group main deferred to 2026-01-05 02:00, saves CNY 1.20"
    coordinator.jobs = coordinator.watched = [job(PENDING, deferred())]
    status = mumian("status", "hello-1")
    assert told in status.out
    assert "has no place" not in status.out
    submitted = mumian("submit", hello)
    assert (submitted.code, told in submitted.out) == (0, True)
    coordinator.planned.explanations.append(deferred())
    planned = mumian("plan", hello)
    assert (planned.code, told in planned.out) == (0, True)


def test_a_task_that_a_quota_holds_back_says_which_and_is_no_failure(
    mumian: Any, coordinator: ScriptedCoordinator, hello: str
) -> None:
    reason = "quota of tenant acme: it holds 2 cores, may hold 2 cores, and a task needs 1 core, 1 core over"
    held = Explanation(task_group="main", task_count=1, held_task_count=1, held_reason=reason)
    coordinator.jobs = coordinator.watched = [job(PENDING, held)]
    told = f"1 task of group main held back by the {reason}"
    assert told in " ".join(mumian("status", "hello-1").out.split())
    submitted = mumian("submit", hello)
    assert (submitted.code, told in submitted.out) == (0, True)
    assert "no site is connected" not in submitted.out


def test_who_is_passed_over_is_told_why(mumian: Any, coordinator: ScriptedCoordinator) -> None:
    passed = explanation(placed=0)
    passed.share_reason = "work of other tenants went first: of higher priority than 50"
    coordinator.jobs = [job(PENDING, passed)]
    shown = " ".join(mumian("status", "hello-1").out.split())
    assert "refused by latency 2 nodes, and work of other tenants went first" in shown


def test_a_tenants_share_is_shown_in_its_units(mumian: Any, coordinator: ScriptedCoordinator) -> None:
    share = coordinator.share
    share.tenant_id, share.weight, share.priority_max = "acme", 3, 80
    share.held.cpu_milli, share.held.tasks, share.held.memory_mib = 2500, 4, 1536
    share.quota.cpu_milli, share.fleet.cpu_milli = 8000, 10_000
    share.dominant_permille, share.dominant_resource = 250, "cores"
    share.projects.add(project="web").quota.tasks = 5
    shown = mumian("share")
    rows = [line.split() for line in shown.out.splitlines()]
    assert ["held", "2.5", "1.5", "0", "4"] in rows
    assert ["quota", "8", "any", "any", "any"] in rows
    assert ["project", "web:", "quota", "any", "any", "any", "5"] in rows
    assert "tenant acme holds 25 % of the fleet's cores at weight 3" in shown.out
    assert mumian("share", "-o", "json").json["priority_max"] == 80


def test_the_table_shows_what_is_evicted_and_the_rarer_parts_of_the_cost(
    mumian: Any, coordinator: ScriptedCoordinator, hello: str
) -> None:
    made = explanation()
    made.evicted_allocation_count = 2
    made.sites[0].cost.egress_microcny_per_hour = 250_000
    coordinator.planned.explanations.append(made)
    run = mumian("plan", hello)
    assert "1 of 1 task placed, in place of 2 tasks of lower priority" in run.out
    assert "egress CNY/h" in run.out
    assert "0.250" in next(line for line in run.out.splitlines() if "CHOSEN" in line)
    assert "stranded" not in run.out


def test_status_shows_each_allocation(mumian: Any, coordinator: ScriptedCoordinator) -> None:
    stored = job(RUNNING, state_message="all is well")
    allocation = stored.allocations.add(
        id="hello-1.main.0",
        site_id="gz-nansha",
        node_id="gz-nansha/n1",
        state=job_pb2.ALLOCATION_STATE_RUNNING,
        restart_count=2,
        endpoints=[job_pb2.Endpoint(port="main", address="10.0.0.1:8080")],
        state_message="restarted after exit code 1",
        it_energy_uj=7_200_000_000,
    )
    allocation.latency.total_us, allocation.latency.budget_us = 18_400, 20_000
    allocation.cost.total_microcny_per_hour = 500_000
    coordinator.jobs = [stored]
    run = mumian("status", "hello-1")
    assert run.code == 0
    row = next(line for line in run.out.splitlines() if line.startswith("main.0 "))
    assert row.split() == (
        ["main.0", "gz-nansha", "n1", "running", "2", "18.4", "of", "20", "0.500", "2.000", "10.0.0.1:8080"]
    )
    assert "all is well" in run.out
    assert "main.0: restarted after exit code 1" in run.out
    assert mumian("status", "hello-1", "-o", "json").json["allocations"][0]["endpoints"] == [
        {"port": "main", "address": "10.0.0.1:8080"}
    ]


def test_a_task_that_is_unwell_says_so(mumian: Any, coordinator: ScriptedCoordinator) -> None:
    stored = job(RUNNING)
    stored.allocations.add(
        id="hello-1.main.0", state=job_pb2.ALLOCATION_STATE_RUNNING, health_fault="GET /healthz answers 503"
    )
    coordinator.jobs = [stored]
    assert "main.0: unwell: GET /healthz answers 503" in mumian("status", "hello-1").out


def test_a_receipt_adds_up_what_has_ended_and_names_what_has_not(
    mumian: Any, coordinator: ScriptedCoordinator
) -> None:
    stored = job(RUNNING)
    coordinator.jobs = [stored]
    assert "no receipt yet" in mumian("receipt", "hello-1").out
    for index in range(2):
        ended = stored.allocations.add(
            id=f"hello-1.main.{index}", site_id="gz", state=job_pb2.ALLOCATION_STATE_SUCCEEDED
        ).receipt
        ended.held_ms, ended.core_ms, ended.it_energy_uj = 3_600_000, 7_200_000, 3_600_000_000_000
        ended.rent_microcny, ended.total_microcny = 1_000_000, 1_250_000 + index
        ended.pue_marginal_permille, ended.pue_source = 1200, fleet_pb2.FIGURE_SOURCE_DECLARED
    stored.allocations.add(id="hello-1.main.2", state=job_pb2.ALLOCATION_STATE_RUNNING)
    run = mumian("receipt", "hello-1")
    rows = [line.split() for line in run.out.splitlines()]
    assert next(row for row in rows if row[:1] == ["all"])[1:] == (
        ["4.0000", "2.000000", "0.000000", "0.000000", "2.500001"]
    )
    assert "1 task still to end" in run.out
    assert "gz: PUE of one more watt 1.20 (declared)" in run.out
    shown = mumian("receipt", "hello-1", "-o", "json").json
    assert shown["total"]["total_microcny"] == "2500001"
    assert [each["allocation_id"] for each in shown["receipts"]] == ["hello-1.main.0", "hello-1.main.1"]
    assert shown["live_allocation_count"] == 1


def test_sites_say_where_their_power_comes_from_and_which_meters_are_not_believed(
    mumian: Any, coordinator: ScriptedCoordinator
) -> None:
    made = fleet_pb2.Site(id="gz", health=fleet_pb2.HEALTH_READY)
    made.pue.average_permille, made.pue.source = 1310, fleet_pb2.FIGURE_SOURCE_MEASURED
    made.pue.marginal_permille, made.pue.marginal_source = 1180, fleet_pb2.FIGURE_SOURCE_DECLARED
    made.meters.add(side=fleet_pb2.METER_SIDE_IT, name="redfish", fault="does not answer")
    made.meters.add(side=fleet_pb2.METER_SIDE_IT, name="rapl", in_use=True).sample_time.GetCurrentTime()
    coordinator.sites = [made]
    lines = mumian("sites").out.splitlines()
    assert re.sub(r"\d+ s old", "N s old", lines[-2]) == (
        "gz: PUE 1.31 measured; of one more watt 1.18 declared; IT W by rapl, N s old; site W modelled"
    )
    assert lines[-1] == "gz: meter redfish does not answer; never believed"
    shown = mumian("sites", "-o", "json").json["sites"][0]["meters"]
    assert [(each["name"], each["in_use"]) for each in shown] == [("redfish", False), ("rapl", True)]


def test_logs_go_where_the_task_wrote_them(mumian: Any, coordinator: ScriptedCoordinator) -> None:
    coordinator.chunks = [
        ReadLogsResponse(stream=LOG_STREAM_STDOUT, data="héllo\n".encode()),
        ReadLogsResponse(stream=LOG_STREAM_STDERR, data=b"oh\n"),
    ]
    coordinator.watched = [job(PENDING), job(RUNNING)]
    coordinator.watched[1].allocations.add(id="hello-1.main.0")
    run = mumian("logs", "hello-1", "-f", "--tail", "100", "--task", "main.0")
    assert run.out == "héllo\n"
    assert run.err.endswith("oh\n")
    asked = coordinator.requests("ReadLogs")[0]
    assert (asked.allocation_id, asked.follow, asked.tail_bytes) == ("hello-1.main.0", True, 100)
    lines = mumian("logs", "hello-1", "-o", "json").out.splitlines()
    assert [json.loads(line)["stream"] for line in lines] == ["LOG_STREAM_STDOUT", "LOG_STREAM_STDERR"]


def test_where_nodes_are_in_their_site_is_shown(mumian: Any, coordinator: ScriptedCoordinator) -> None:
    usage = fleet_pb2.SiteUsage(switch_count=2, rack_count=1, switchless_node_count=1)
    coordinator.sites = [fleet_pb2.Site(id="gz", health=fleet_pb2.HEALTH_READY, usage=usage)]
    coordinator.nodes = [
        fleet_pb2.Node(id="gz/n1", site_id="gz", switch_id="sw-7", rack_id="r3"),
        fleet_pb2.Node(id="gz/n2", site_id="gz"),
    ]
    assert "gz: 2 switches, 1 rack; 1 node of which no switch is known" in mumian("sites").out
    table = mumian("nodes").out
    assert all(word in table for word in ("switch", "rack", "sw-7", "r3"))
    coordinator.nodes = [fleet_pb2.Node(id="gz/n2", site_id="gz")]
    assert "switch" not in mumian("nodes").out


def test_every_list_verb_prints_a_table_and_json(mumian: Any, coordinator: ScriptedCoordinator) -> None:
    coordinator.jobs = [job(RUNNING)]
    coordinator.sites = [fleet_pb2.Site(id="gz", health=fleet_pb2.HEALTH_READY)]
    coordinator.nodes = [fleet_pb2.Node(id="gz/n1", site_id="gz", arch="arm64")]
    coordinator.zones = [fleet_pb2.Zone(id="tianhe", title="天河")]
    coordinator.links = [fleet_pb2.Link(from_id="tianhe", to_site_id="gz", rtt_p99_us=1500)]
    coordinator.planned.explanations.append(explanation())
    coordinator.events = [job_event()]
    wanted = {
        ("jobs",): ("jobs", "hello-1"),
        ("jobs", "--state", "running"): ("jobs", "running"),
        ("sites",): ("sites", "ready"),
        ("nodes", "gz"): ("nodes", "gz/n1"),
        ("zones",): ("zones", "gz 1.5"),
        ("links",): ("links", "1.50"),
        ("explain", "hello-1"): ("explanations", "CHOSEN"),
        ("events", "hello-1"): ("events", "main.0 running"),
        ("top", "--once"): ("sites", "1 live job"),
    }
    for argv, (name, shown) in wanted.items():
        table = mumian(*argv)
        assert table.code == 0
        assert shown in table.out
        assert all(len(line) <= WIDTH_MAX for line in table.out.splitlines())
        assert len(mumian(*argv, "--output", "json").json[name]) == 1


def test_the_brake_is_shown_with_the_sites_and_released_when_asked(
    mumian: Any, coordinator: ScriptedCoordinator
) -> None:
    coordinator.sites = [fleet_pb2.Site(id="gz", health=fleet_pb2.HEALTH_UNREACHABLE)]
    coordinator.brake.engaged, coordinator.brake.summary = True, "5 of 8 sites vanished"
    coordinator.disconnects = ["task main.0: site gz is silent"]
    assert "brake: 5 of 8 sites vanished" in mumian("sites").out
    assert mumian("brake").out == "5 of 8 sites vanished\n"
    assert "task main.0: site gz is silent" in mumian("explain", "hello-1").out
    assert "the brake is released" in mumian("brake", "--release").out
    assert coordinator.requests("ReleaseDisconnectBrake")


def test_nothing_to_list_says_what_to_do(mumian: Any) -> None:
    assert "mumian submit FILE" in mumian("jobs").out
    assert "mumian-agent run" in mumian("sites").out


def test_cancel_says_how_to_see_the_end(mumian: Any) -> None:
    assert "`mumian status hello-1`" in mumian("cancel", "hello-1").out
    assert mumian("cancel", "hello-1", "-o", "json").json["cancel_requested"] is True


def test_sites_zones_and_links_show_what_is_left_of_caps_and_bandwidths(
    mumian: Any, coordinator: ScriptedCoordinator
) -> None:
    """Columns that nobody has anything for are left out."""
    link = fleet_pb2.Link(from_id="tianhe", to_site_id="gz", rtt_p99_us=4000)
    coordinator.sites = [fleet_pb2.Site(id="gz"), fleet_pb2.Site(id="sg")]
    coordinator.zones = [fleet_pb2.Zone(id="tianhe")]
    coordinator.links = [link]
    assert "cap kW" not in mumian("sites").out
    assert "Mbit/s" not in mumian("links").out + mumian("zones").out
    coordinator.sites[0].power_cap_mw = 8_000_000
    coordinator.sites[0].usage.facility_power_mw_allocated = 450_000
    link.bandwidth_kbps, link.bandwidth_kbps_allocated = 1_000_000, 300_000
    sites = mumian("sites").out.splitlines()
    assert sites[0].rstrip().endswith("cap kW used")
    assert all(len(line) <= WIDTH_MAX for line in sites)
    assert next(line for line in sites if line.startswith("gz")).rstrip().endswith("0.45 of 8")
    assert "gz 4.0 (700 of 1000 Mbit/s free)" in mumian("zones").out
    assert "300 of 1000" in mumian("links").out
