"""What the demo does, in order, once it has a city to start."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence

from mumian import Client
from mumian.api.v1.job_pb2 import Job
from mumian_orchestrator.main.config import Config

from examples.demo import city, tenants, workloads
from examples.demo.account import usage_of
from examples.demo.baselines import Comparison
from examples.demo.jobs import vr_renderer
from examples.demo.report import Report
from examples.demo.running_city import RunningCity
from examples.demo.workloads import Workload
from examples.demo.zone_client import Measurement, measure

_REQUESTS = 300

Placed = tuple[Job, Workload]


def run(running: RunningCity, report: Report) -> None:
    """All of it; the caller stops the city.

    Raises:
        DemoError: a job did not do what it should.
        StartError, MumianError, ServiceError: a part of the city does not work.
    """
    with report.doing("starting the city: three sites, each with an agent and a Ray of its own"):
        running.start()
    with report.doing("profiling the risk service: how many scenarios the time allows"):
        profile = workloads.profiled_risk()
    report.step(f"a valuation of {profile.scenarios} scenarios takes {profile.compute_ms:.1f} ms here (p99)")
    with Client(running.coordinator) as client:
        with report.doing("the agents probe the zones and one another until the round trips are steady"):
            tenants.wait_for_links(client)
        report.step(f"{len(city.RTT_MS)} links measured")
        report.round_trips(client.links())

        # The services first and together: what starts takes the processor from the probes of what follows.
        services = place(client, [workloads.vr_service(), workloads.risk_service(profile)], report)
        show_impossible(client, report)
        batches = place(client, [workloads.training()], report)
        placed = [*services, *batches]
        comparison = Comparison(
            sites=client.sites(),
            nodes=client.nodes(),
            decided=[explanation for job, _ in placed for explanation in job.explanations],
            jobs={job.id: job.spec for job, _ in placed},
            zones={job.id: workload.zone.id for job, workload in placed},
            carbon_kg_microcny=Config().carbon_kg_microcny,
        )

        report.title("All at work")
        for job, _ in batches:
            with report.doing(f"{job.spec.name} runs to its end; the services wait for their users"):
                tenants.until_succeeded(client, job)
            report.step(f"{job.spec.name} has succeeded; the end of its log:")
            report.lines(tenants.log_lines(client, job.id))
        measured = measure_services(running, services, report)
        with report.doing("stopping the services, and closing their accounts"):
            for job, _ in services:
                client.cancel(job.id)
            closed = [tenants.until_ended(client, job) for job, _ in placed]
        sites = {site.id: site for site in client.sites()}
    report.latencies(measured)
    report.lines(samples_of(measured))
    report.remark(
        f"This machine had {os.cpu_count()} cores for all of it, at a load of {os.getloadavg()[0]:.1f}; "
        "what else ran on them shows in p99."
    )
    report.usages([usage_of(job, sites) for job in closed])
    report.comparison(comparison.outcomes(), [job.spec.name for job, _ in placed])


def place(client: Client, wanted: Sequence[Workload], report: Report) -> list[Placed]:
    """Submit jobs together; show where each went.

    Raises:
        DemoError: one does not run.
    """
    names = " and ".join(workload.spec.name for workload in wanted)
    with report.doing(f"submitting {names}"):
        stored = [client.submit(workload.spec) for workload in wanted]
        running = [tenants.until_running(client, job) for job in stored]
    for job, workload in zip(running, wanted, strict=True):
        report.placement(job, workload)
        report.step(f"{job.spec.name} ran {tenants.seconds_to_run(job):.2f} s after it was submitted")
    return list(zip(running, wanted, strict=True))


def show_impossible(client: Client, report: Report) -> None:
    """Submit a job that no site can serve, show why and what would help, and withdraw it.

    Raises:
        DemoError: nobody says why it waits.
    """
    workload = workloads.impossible_hedging()
    job = tenants.until_decided(client, client.submit(workload.spec))
    client.cancel(job.id)
    report.placement(job, workload)
    for budget_ms, site in tenants.smallest_budget(client, job):
        report.remark(f"`plan`, which reserves nothing, says: {site} would take it with {budget_ms:g} ms")


def measure_services(
    running: RunningCity, services: Sequence[Placed], report: Report
) -> list[tuple[Job, Workload, Measurement]]:
    """Be the users of each service, one service after the other.

    Raises:
        ServiceError: one does not answer.
    """
    ends = {job.id: (workload.zone.id, job.allocations[-1]) for job, workload in services}
    near_ends = running.open_service_paths(
        {(zone, allocation.site_id): allocation.endpoints[0].address for zone, allocation in ends.values()}
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
