"""What the demo does, in order, once it has a city to start."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence

from mumian import Client
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Job, JobSpec
from mumian.calls import TERMINAL_STATES
from mumian.cli.considered import is_placed, why_not
from mumian.cli.submit import is_settled
from mumian_orchestrator.main.config import Config

from examples.demo import city, workloads
from examples.demo.account import usage_of
from examples.demo.baselines import Comparison
from examples.demo.jobs import var_pricing, vr_renderer
from examples.demo.report import Report
from examples.demo.running_city import RunningCity
from examples.demo.workloads import Workload
from examples.demo.zone_client import Measurement, measure

_LINKS_WITHIN_S, _PLACED_WITHIN_S, _ENDED_WITHIN_S = 30.0, 60.0, 90.0
_REQUESTS = 300
_LOG_LINES = 12
_BUDGET_STEP_US, _BUDGET_STEPS_MAX = 500, 20

Submitted = tuple[Job, Workload]


class DemoError(Exception):
    """The demo cannot go on, with the reason."""


def run(running: RunningCity, report: Report) -> None:
    """All of it; the caller stops the city.

    Raises:
        DemoError: a job did not do what it should.
        StartError, MumianError, ServiceError: a part of the city does not work.
    """
    with report.doing("starting the city: three sites, each with an agent and a Ray of its own"):
        running.start()
    with report.doing(f"profiling the risk service: {var_pricing.SCENARIOS} scenarios a valuation"):
        var_ms = workloads.profiled_var_ms()
    report.step(f"a valuation takes {var_ms:.1f} ms on this machine (p99)")
    with Client(running.coordinator) as client:
        with report.doing("the agents probe the zones and one another"):
            wait_for_links(client)
        report.step(f"{len(city.RTT_MS)} links measured")
        report.round_trips(client.links())

        tenants = (workloads.vr_service(), workloads.risk_service(var_ms), workloads.training())
        placed = [(submit(client, workload, report), workload) for workload in tenants]
        show_impossible(client, report)
        comparison = Comparison(
            sites=client.sites(),
            nodes=client.nodes(),
            decided=[explanation for job, _ in placed for explanation in job.explanations],
            jobs={job.id: job.spec for job, _ in placed},
            zones={job.id: workload.zone.id for job, workload in placed},
            carbon_kg_microcny=Config().carbon_kg_microcny,
        )

        report.title("All at work")
        for job, workload in placed:
            if not workload.is_service:
                wait_for_success(client, job, report)
        services = [(job, workload) for job, workload in placed if workload.is_service]
        measured = measure_services(running, services, report)
        with report.doing("stopping the services, and closing their accounts"):
            for job, _ in services:
                client.cancel(job.id)
            closed = [client.wait(job.id, timeout_s=_ENDED_WITHIN_S) for job, _ in placed]
        sites = {site.id: site for site in client.sites()}
    report.latencies(measured)
    report.lines(samples_of(measured))
    report.usages([usage_of(job, sites) for job in closed])
    report.comparison(comparison.outcomes(), [job.spec.name for job, _ in placed])


def wait_for_links(client: Client) -> None:
    """Until every window of probes is full, and what was measured during the start has left it.

    Raises:
        DemoError: it does not come to that.
    """
    time.sleep(city.PROBE_WINDOW_S)
    deadline_s = time.monotonic() + _LINKS_WITHIN_S
    while True:
        full = sum(link.sample_count >= city.PROBE_WINDOW for link in client.links())
        if full == len(city.RTT_MS):
            return
        if time.monotonic() > deadline_s:
            raise DemoError(f"{full} of {len(city.RTT_MS)} links were measured in {_LINKS_WITHIN_S:.0f} s")
        time.sleep(0.2)


def submit(client: Client, workload: Workload, report: Report) -> Job:
    """The job as soon as it runs; shows where it went.

    Raises:
        DemoError: it has no place, or does not start.
    """
    begun_s = time.monotonic()
    job = stored = client.submit(workload.spec)
    try:
        with report.doing(f"submitting {workload.spec.name}"):
            for job in client.watch(stored.id, timeout_s=_PLACED_WITHIN_S):
                if job.state in (job_pb2.JOB_STATE_RUNNING, *TERMINAL_STATES):
                    break
    except TimeoutError:
        waiting = "; ".join(why_not(each) for each in job.explanations if not is_placed(each))
        message = waiting or "it was placed but did not start"
        raise DemoError(f"{job.id} does not run after {_PLACED_WITHIN_S:.0f} s: {message}") from None
    if job.state in (job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED):
        raise failure(client, job)
    report.placement(job, workload)
    report.step(f"{workload.spec.name} runs, {time.monotonic() - begun_s:.2f} s after it was submitted")
    return job


def show_impossible(client: Client, report: Report) -> None:
    """Submit a job that no site can serve, show why and what would help, and withdraw it.

    Raises:
        DemoError: nobody says why it waits.
    """
    workload = workloads.impossible_hedging()
    stored = client.submit(workload.spec)
    try:
        watch = client.watch(stored.id, timeout_s=_PLACED_WITHIN_S)
        job = next(job for job in watch if is_settled(job))
    except TimeoutError:
        raise DemoError(f"nobody said in {_PLACED_WITHIN_S:.0f} s why {stored.id} waits") from None
    report.placement(job, workload)
    client.cancel(job.id)
    for budget_ms, site in smallest_budget(client, job):
        report.remark(f"`plan`, which reserves nothing, says: {site} would take it with {budget_ms:g} ms")


def smallest_budget(client: Client, job: Job) -> Iterator[tuple[float, str]]:
    """The least budget, in steps of half a millisecond, at which `plan` finds a site; none if far from it."""
    totals_us = [site.latency.total_us for site in job.explanations[0].sites if site.latency.link_known]
    least = math.ceil(min(totals_us) / _BUDGET_STEP_US) if totals_us else 0
    for steps in range(least, least + _BUDGET_STEPS_MAX):
        spec = JobSpec()
        spec.CopyFrom(job.spec)
        spec.task_groups[0].latency_slo.budget_us = steps * _BUDGET_STEP_US
        tasks = client.plan(spec).tasks
        if tasks:
            yield steps * _BUDGET_STEP_US / 1000, tasks[0].site_id
            return


def wait_for_success(client: Client, job: Job, report: Report) -> None:
    """See a batch job to its end.

    Raises:
        DemoError: it failed.
    """
    with report.doing(f"{job.spec.name} runs to its end; the services wait for their users"):
        try:
            ended = client.wait(job.id, timeout_s=_ENDED_WITHIN_S)
        except TimeoutError:
            raise DemoError(f"{job.id} has not ended after {_ENDED_WITHIN_S:.0f} s") from None
    if ended.state != job_pb2.JOB_STATE_SUCCEEDED:
        raise failure(client, ended)
    report.step(f"{job.spec.name} has succeeded; the end of its log:")
    report.lines(log_lines(client, job.id))


def measure_services(
    running: RunningCity, services: Sequence[Submitted], report: Report
) -> list[tuple[Job, Workload, Measurement]]:
    """Be the users of each service, one service after the other.

    Raises:
        ServiceError: one does not answer.
    """
    ends = {job.id: (workload.zone.id, job.allocations[-1]) for job, workload in services}
    near_ends = running.open_service_paths(
        {(zone, allocation.site_id): allocation.endpoint for zone, allocation in ends.values()}
    )
    measured = []
    for job, workload in services:
        zone, allocation = ends[job.id]
        assert workload.request is not None
        with report.doing(f"{_REQUESTS} requests from {zone} to {job.spec.name} at {allocation.site_id}"):
            measurement = measure(near_ends[zone, allocation.site_id], workload.request, _REQUESTS)
        measured.append((job, workload, measurement))
    return measured


def samples_of(measured: Iterable[tuple[Job, Workload, Measurement]]) -> Iterator[str]:
    """The last answer of each service, in words."""
    for _, workload, measurement in measured:
        name = workload.spec.name
        if vr_renderer.SHARP_HEADER in measurement.last_headers:
            share = float(measurement.last_headers[vr_renderer.SHARP_HEADER])
            frame = f"{vr_renderer.WIDTH} x {vr_renderer.HEIGHT} pixels, {len(measurement.last_body)} bytes"
            yield f"{name} answered last: {frame}, the middle {share:.0%} of them sharp"
        else:
            risk = json.loads(measurement.last_body)
            yield (
                f"{name} answered last: value {risk['value']:,.0f} CNY, of which at risk over 10 days (99 %) "
                f"{risk['value_at_risk']:,.0f}, expected shortfall {risk['expected_shortfall']:,.0f}"
            )


def failure(client: Client, job: Job) -> DemoError:
    """Why a job has failed, with the end of its log."""
    state = job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
    lines = [f"{job.id} has {state}: {job.state_message or 'no reason given'}; the end of its log:"]
    return DemoError("\n  ".join([*lines, *log_lines(client, job.id)]))


def log_lines(client: Client, job_id: str) -> list[str]:
    """The end of what a job has written."""
    written = b"".join(client.logs(job_id)).decode(errors="replace")
    return written.splitlines()[-_LOG_LINES:]
