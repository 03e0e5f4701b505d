"""Changes to a scenario, for questions of the kind "what if"."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from mumian_orchestrator.bench.sim.fields import Fields, ScenarioError
from mumian_orchestrator.bench.sim.scenario import Event, Scenario, Site, read_site

_MICROCNY = 1_000_000
_DAY_HOURS = 24


class Change(NamedTuple):
    """One kind of change: how it is written, what it says, and how it is done."""

    written: str
    pattern: str
    told: str
    make: Callable[[Scenario, re.Match[str]], Scenario]


def changed(scenario: Scenario, kind: str, text: str) -> Scenario:
    """The scenario after a change.

    Raises:
        ScenarioError: it is not written as it must be, or names what the scenario does not have.
    """
    change = CHANGES[kind]
    match = re.fullmatch(change.pattern, text)
    if match is None:
        raise ScenarioError(f"--{kind} ({text}) must be {change.written}; {change.told}")
    return change.make(scenario, match)


def _with_site(scenario: Scenario, site_id: str, make: Callable[[Site], Site]) -> Scenario:
    known = {site.id: site for site in scenario.sites}
    Fields({}, "").known("site", site_id, known)
    sites = tuple(make(site) if site.id == site_id else site for site in scenario.sites)
    return dataclasses.replace(scenario, sites=sites)


def _from_hour(kind: str) -> Callable[[Scenario, re.Match[str]], Scenario]:
    def make(scenario: Scenario, match: re.Match[str]) -> Scenario:
        _with_site(scenario, match[1], lambda site: site)
        begin_s = round(float(match[2] or 0) * 3600)
        if begin_s > scenario.duration_s:
            raise ScenarioError(
                f"--{kind.removeprefix('site_').replace('loss', 'lose')} ({match[0]}) is after the end; "
                f"the run has {scenario.duration_s / 3600:g} hours"
            )
        event = Event(kind, begin_s, scenario.duration_s + scenario.tick_s, match[1])
        return dataclasses.replace(scenario, events=(*scenario.events, event))

    return make


def _add_site(scenario: Scenario, match: re.Match[str]) -> Scenario:
    path = Path(match[0])
    try:
        raw = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScenarioError(f"--add-site ({path}) cannot be read: {error}") from error
    fields = Fields(raw, str(path))
    site = read_site(fields)
    fields.end()
    if any(site.id == other.id for other in scenario.sites):
        raise ScenarioError(f"--add-site ({path}): {site.id} is there already; give the new site another id")
    return dataclasses.replace(scenario, sites=(*scenario.sites, site))


def _add_nodes(scenario: Scenario, match: re.Match[str]) -> Scenario:
    number, count = int(match[2] or 0), int(match[3])
    if not count:
        raise ScenarioError(f"--add-nodes ({match[0]}) adds none; give at least 1")

    def more(site: Site) -> Site:
        if number >= len(site.nodes):
            raise ScenarioError(
                f"--add-nodes ({match[0]}): {site.id} has {len(site.nodes)} classes, from 0 on"
            )
        nodes = list(site.nodes)
        nodes[number] = dataclasses.replace(nodes[number], count=nodes[number].count + count)
        return dataclasses.replace(site, nodes=tuple(nodes))

    return _with_site(scenario, match[1], more)


def _pue(scenario: Scenario, match: re.Match[str]) -> Scenario:
    permille = round(1000 * float(match[2]))
    if permille < 1000:
        raise ScenarioError(f"--pue ({match[0]}): a PUE is at least 1")
    return _with_site(scenario, match[1], lambda site: dataclasses.replace(site, pue_permille=permille))


def _price(scenario: Scenario, match: re.Match[str]) -> Scenario:
    site_id, what, cny = match[1], match[2], float(match[3])
    microcny = round(cny * _MICROCNY)

    def dearer(site: Site) -> Site:
        if what == "cpu":
            return dataclasses.replace(site, cpu_core_hour_microcny=microcny)
        if what == "memory":
            return dataclasses.replace(site, memory_gib_hour_microcny=microcny)
        if what == "energy":
            return dataclasses.replace(site, energy_kwh_cny=(cny,) * _DAY_HOURS)
        if what not in {group.accelerator_model for group in site.nodes}:
            raise ScenarioError(
                f"--price ({match[0]}): {what} is no price of {site.id}; give cpu, memory, energy or a model"
            )
        nodes = tuple(
            dataclasses.replace(group, accelerator_hour_microcny=microcny)
            if group.accelerator_model == what
            else group
            for group in site.nodes
        )
        return dataclasses.replace(site, nodes=nodes)

    return _with_site(scenario, site_id, dearer)


def _rtt(scenario: Scenario, match: re.Match[str]) -> Scenario:
    Fields({}, "").known("zone", match[1], {zone.id: zone for zone in scenario.zones})
    _with_site(scenario, match[2], lambda site: site)
    links = {**scenario.links_rtt_p99_us, (match[1], match[2]): round(1000 * float(match[3]))}
    return dataclasses.replace(scenario, links_rtt_p99_us=links)


def _slo(scenario: Scenario, match: re.Match[str]) -> Scenario:
    Fields({}, "").known("class", match[1], {job.name: job for job in scenario.jobs})
    budget_us = round(1000 * float(match[2]))
    if not budget_us:
        raise ScenarioError(f"--slo ({match[0]}) leaves no time at all; give at least 0.001")
    jobs = tuple(
        dataclasses.replace(
            job,
            groups=tuple(
                dataclasses.replace(group, slo_budget_us=budget_us) if group.slo_budget_us else group
                for group in job.groups
            ),
        )
        if job.name == match[1]
        else job
        for job in scenario.jobs
    )
    if jobs == scenario.jobs:
        raise ScenarioError(f"--slo ({match[0]}): {match[1]} promises no latency, or just that")
    return dataclasses.replace(scenario, jobs=jobs)


def _demand(scenario: Scenario, match: re.Match[str]) -> Scenario:
    Fields({}, "").known("class", match[1], {job.name: job for job in scenario.jobs})
    factor = float(match[2])
    jobs = tuple(
        dataclasses.replace(job, per_hour=tuple(rate * factor for rate in job.per_hour))
        if job.name == match[1]
        else job
        for job in scenario.jobs
    )
    if jobs == scenario.jobs:
        raise ScenarioError(f"--demand ({match[0]}): {match[1]} has a trace of arrivals, or is as it was")
    return dataclasses.replace(scenario, jobs=jobs)


_NUMBER = r"(\d+(?:\.\d+)?)"
_SITE_FROM_HOUR = ("SITE or SITE@HOUR", rf"([^\s@]+)(?:@{_NUMBER})?")
CHANGES: Mapping[str, Change] = {
    "lose": Change(*_SITE_FROM_HOUR, "lose a site, from an hour on", _from_hour("site_loss")),
    "drain": Change(*_SITE_FROM_HOUR, "place nothing more at a site, from an hour on", _from_hour("drain")),
    "add-site": Change("FILE", r".+", "one more site: a YAML file with an entry of `sites`", _add_site),
    "add-nodes": Change(
        "SITE=COUNT or SITE/CLASS=COUNT",
        r"([^\s=/]+)(?:/(\d{1,4}))?=(\d{1,6})",
        "more nodes like those of a site",
        _add_nodes,
    ),
    "pue": Change("SITE=PUE", rf"([^\s=]+)={_NUMBER}", "another PUE: hub=1.2", _pue),
    "price": Change(
        "SITE.WHAT=CNY",
        rf"([^\s.=]+)\.([^\s=]+)={_NUMBER}",
        "another price of cpu, memory, energy or a device's model: hub.energy=0.45",
        _price,
    ),
    "rtt": Change(
        "ZONE:SITE=MS",
        rf"([^\s:]+):([^\s=]+)={_NUMBER}",
        "another round trip p99, in ms: tianhe:hub=8",
        _rtt,
    ),
    "slo": Change("CLASS=MS", rf"([^\s=]+)={_NUMBER}", "another latency budget, in ms: render=30", _slo),
    "demand": Change(
        "CLASS=FACTOR",
        rf"([^\s=]+)={_NUMBER}",
        "so many times the arrivals of a class: render=1.5",
        _demand,
    ),
}
