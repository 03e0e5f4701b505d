"""Smaller forms of a scenario: a window of its hours, a share of its size."""

from __future__ import annotations

import dataclasses

from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.jobs import JobClass
from mumian_orchestrator.bench.sim.scenario import Event, NodeClass, Scenario, Site


def short_form(scenario: Scenario) -> Scenario:
    """As the scenario's field `short` says."""
    short = scenario.short
    return scaled(window(scenario, short.from_h, short.hours), short.scale)


def window(scenario: Scenario, from_h: int, hours: float) -> Scenario:
    """So many hours from an hour of the first day on. Nothing runs at its start.

    Raises:
        ScenarioError: there is not one tick of it.
    """
    start_s = from_h * 3600
    left_s = scenario.duration_s - start_s
    if min(hours * 3600, left_s) < scenario.tick_s:
        raise ScenarioError(
            f"{hours:g} hours from hour {from_h} on are less than a tick of {scenario.tick_s} s; "
            f"the scenario has {scenario.duration_s / 3600:g} hours"
        )
    return dataclasses.replace(
        scenario,
        duration_s=round(min(hours * 3600, left_s)),
        sites=tuple(_site_from(site, from_h) for site in scenario.sites),
        jobs=tuple(_job_from(job, from_h) for job in scenario.jobs),
        events=tuple(_event_from(event, start_s) for event in scenario.events if event.end_s > start_s),
    )


def scaled(scenario: Scenario, share: float) -> Scenario:
    """A share of the nodes of each class, at least one, of the bandwidths and of the arrivals.

    A trace keeps every so-manieth task.
    """
    if share == 1.0:
        return scenario
    return dataclasses.replace(
        scenario,
        sites=tuple(_smaller(site, share) for site in scenario.sites),
        jobs=tuple(_fewer_arrivals(job, share) for job in scenario.jobs),
    )


def _smaller(site: Site, share: float) -> Site:
    most = site.more_nodes_max
    return dataclasses.replace(
        site,
        link_mbps=site.link_mbps * share,
        more_nodes_max=None if most is None else round(most * share),
        nodes=tuple(_fewer(group, share) for group in site.nodes),
    )


def _fewer(group: NodeClass, share: float) -> NodeClass:
    return dataclasses.replace(group, count=max(1, round(group.count * share)))


def _fewer_arrivals(job: JobClass, share: float) -> JobClass:
    kept = [n for n in range(len(job.trace_s)) if int(n * share) != int((n + 1) * share)]
    return dataclasses.replace(
        job,
        per_hour=tuple(rate * share for rate in job.per_hour),
        trace_s=tuple(job.trace_s[n] for n in kept),
        trace_run_times_s=tuple(job.trace_run_times_s[n] for n in kept) if job.trace_run_times_s else (),
    )


def _site_from(site: Site, from_h: int) -> Site:
    return dataclasses.replace(
        site,
        temperature_c=_turned(site.temperature_c, from_h),
        energy_kwh_cny=_turned(site.energy_kwh_cny, from_h),
        carbon_g_per_kwh=_turned(site.carbon_g_per_kwh, from_h),
        link_others=_turned(site.link_others, from_h),
    )


def _job_from(job: JobClass, from_h: int) -> JobClass:
    later = [n for n, at_s in enumerate(job.trace_s) if at_s >= from_h * 3600]
    return dataclasses.replace(
        job,
        per_hour=_turned(job.per_hour, from_h),
        trace_s=tuple(job.trace_s[n] - from_h * 3600 for n in later),
        trace_run_times_s=tuple(job.trace_run_times_s[n] for n in later) if job.trace_run_times_s else (),
    )


def _event_from(event: Event, start_s: int) -> Event:
    return dataclasses.replace(event, at_s=max(0, event.at_s - start_s), end_s=event.end_s - start_s)


def _turned(by_hour: tuple[float, ...], hours: int) -> tuple[float, ...]:
    return by_hour[hours % 24 :] + by_hour[: hours % 24]
