"""The tenants' side of the demo, by the public SDK: submit, wait, read logs, ask what would help."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator

from mumian import Client
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Job, JobSpec
from mumian.calls import TERMINAL_STATES
from mumian.cli.considered import waiting
from mumian.cli.submit import is_decided

from examples.demo import city

_LINKS_WITHIN_S, _QUIET_WITHIN_S, _PLACED_WITHIN_S, _ENDED_WITHIN_S = 30.0, 10.0, 60.0, 90.0
_QUIET_SPREAD_US = 3000
_POLL_S = 0.2
_LOG_LINES = 12
_BUSY_LOAD_PER_CORE = 1.4  # the demo alone makes about one, on two cores
_BUDGET_STEP_US, _BUDGET_STEPS_MAX = 500, 20


class DemoError(Exception):
    """The demo cannot go on, with the reason."""


def wait_for_links(client: Client) -> None:
    """Until the agents have measured every link, and have forgotten what they saw while the city started.

    Where the machine is too busy for the round trips to become steady, the demo goes on with what there is.

    Raises:
        DemoError: a link is not measured at all.
    """
    time.sleep(city.PROBE_WINDOW_S)
    begun_s = time.monotonic()
    while True:
        links = [link for link in client.links() if link.sample_count >= city.PROBE_WINDOW]
        steady = all(link.rtt_p99_us - link.rtt_p50_us <= _QUIET_SPREAD_US for link in links)
        waited_s = time.monotonic() - begun_s
        if len(links) == len(city.RTT_MS) and (steady or waited_s > _QUIET_WITHIN_S):
            return
        if waited_s > _LINKS_WITHIN_S:
            raise DemoError(f"{len(links)} of {len(city.RTT_MS)} links were measured in {waited_s:.0f} s")
        time.sleep(_POLL_S)


def until_running(client: Client, job: Job) -> Job:
    """The job as soon as it runs.

    Raises:
        DemoError: it has no place, or does not start.
    """
    try:
        for job in client.watch(job.id, timeout_s=_PLACED_WITHIN_S):  # noqa: B020 -- ever newer states of it
            if job.state in (job_pb2.JOB_STATE_RUNNING, *TERMINAL_STATES):
                break
    except TimeoutError:
        waits = "; ".join(told for each in job.explanations if (told := waiting(each)))
        message = waits or "it was placed but did not start"
        raise DemoError(
            f"{job.id} does not run after {_PLACED_WITHIN_S:.0f} s: {message}{_busy_machine()}"
        ) from None
    if job.state in (job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED):
        raise _failure(client, job)
    return job


def _busy_machine() -> str:
    """That others keep the processors, which would explain it; nothing where they do not."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load <= _BUSY_LOAD_PER_CORE * cores:
        return ""
    return (
        f"\nthis machine is busy (load {load:.1f} on {cores} cores), and promises in milliseconds need "
        "processors that are free: run it again when they are"
    )


def until_decided(client: Client, job: Job) -> Job:
    """The job as soon as it is known why it waits.

    Raises:
        DemoError: nobody says.
    """
    try:
        return next(each for each in client.watch(job.id, timeout_s=_PLACED_WITHIN_S) if is_decided(each))
    except TimeoutError:
        raise DemoError(f"nobody said in {_PLACED_WITHIN_S:.0f} s why {job.id} waits") from None


def until_succeeded(client: Client, job: Job) -> Job:
    """The job at its end.

    Raises:
        DemoError: it failed, or does not end.
    """
    ended = until_ended(client, job)
    if ended.state != job_pb2.JOB_STATE_SUCCEEDED:
        raise _failure(client, ended)
    return ended


def until_ended(client: Client, job: Job) -> Job:
    """The job at its end, whatever it is.

    Raises:
        DemoError: it does not end.
    """
    try:
        return client.wait(job.id, timeout_s=_ENDED_WITHIN_S)
    except TimeoutError:
        raise DemoError(f"{job.id} has not ended after {_ENDED_WITHIN_S:.0f} s") from None


def seconds_to_run(job: Job) -> float:
    """From the coordinator's word that the job is stored to the start of its last task."""
    started_ns = max(allocation.start_time.ToNanoseconds() for allocation in job.allocations)
    return (started_ns - job.create_time.ToNanoseconds()) / 1e9


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


def log_lines(client: Client, job_id: str) -> list[str]:
    """The end of what a job has written."""
    written = b"".join(client.logs(job_id)).decode(errors="replace")
    return written.splitlines()[-_LOG_LINES:]


def _failure(client: Client, job: Job) -> DemoError:
    """Why a job has failed, with the end of its log."""
    state = job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
    lines = [f"{job.id} has {state}: {job.state_message or 'no reason given'}; the end of its log:"]
    return DemoError("\n  ".join([*lines, *log_lines(client, job.id)]))
