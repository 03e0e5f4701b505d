"""What a scenario file says: places, machines, prices, work, and what goes wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from mumian_orchestrator.bench.sim.datasets import expanded
from mumian_orchestrator.bench.sim.fields import Fields, ScenarioError
from mumian_orchestrator.bench.sim.sources import Source, read_sources

TIERS = {"city": 1, "edge": 2, "hub": 3}
EVENTS = {"site_loss": "site", "link_cut": "link", "heat": "site"}


@dataclass(frozen=True, slots=True)
class Zone:
    """Where users are, in degrees; `users` is its weight among the zones."""

    id: str
    latitude: float
    longitude: float
    users: int


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Alike machines of a site."""

    count: int
    arch: str
    cores: int
    memory_gib: int
    core_active_power_mw: int
    accelerator_model: str
    accelerator_count: int
    accelerator_active_power_mw: int
    accelerator_hour_microcny: int


@dataclass(frozen=True, slots=True)
class Site:
    """One site. Its PUE grows by `pue_permille_per_c` for each degree above `pue_free_cooling_c`.

    All that is by hour has 24 values.
    """

    id: str
    operator: str
    tier: int
    jurisdiction: str
    latitude: float
    longitude: float
    pue_permille: int
    pue_free_cooling_c: float
    pue_permille_per_c: float
    temperature_c: tuple[float, ...]
    energy_kwh_cny: tuple[float, ...]
    carbon_g_per_kwh: tuple[float, ...]
    cpu_core_hour_microcny: int
    memory_gib_hour_microcny: int
    nodes: tuple[NodeClass, ...]

    def pue_at(self, hour: int, extra_c: float = 0.0) -> int:
        """PUE in permille at an hour since the start, on a day that is so much warmer."""
        above_c = max(0.0, self.temperature_c[hour % 24] + extra_c - self.pue_free_cooling_c)
        return round(self.pue_permille + self.pue_permille_per_c * above_c)


@dataclass(frozen=True, slots=True)
class JobClass:
    """Alike jobs of one task each.

    Args:
        accelerator_models: those that it accepts; none named: any.
        per_hour: mean arrivals by hour of the day.
        trace_s, trace_run_times_s: in place of drawn arrivals and, where given, run times.
        run_time_s: mean of an exponential distribution, or (`is_run_time_fixed`) of every task.
        start_s: from its place to its first second of work: fetching, starting. It holds its room meanwhile.
        slo_budget_us: 0: no latency promise. The users of each job are in one of `zones`, drawn evenly; a
            zone that is named twice is drawn twice as often.
        is_movable: a running task may be moved, as the coordinator moves services. By default those with a
            latency promise: sessions, not batch work.
    """

    name: str
    tenant: str
    priority: int
    cpu_milli: int
    memory_mib: int
    accelerator_milli: int
    accelerator_models: tuple[str, ...]
    per_hour: tuple[float, ...]
    trace_s: tuple[float, ...]
    trace_run_times_s: tuple[float, ...]
    run_time_s: float
    is_run_time_fixed: bool
    start_s: float
    zones: tuple[str, ...]
    slo_budget_us: int
    compute_us: int
    client_us: int
    is_movable: bool

    @property
    def arrivals_a_day(self) -> float:
        """On average; of a trace: all of it."""
        return len(self.trace_s) or sum(self.per_hour)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that goes wrong for a while: a site is lost, a zone's link is cut, or a site is warmer."""

    kind: str
    at_s: int
    end_s: int
    site: str
    zone: str
    extra_c: float


@dataclass(frozen=True, slots=True)
class ShortForm:
    """A part of the scenario that runs in seconds: so many hours from one on, at a share of its size."""

    from_h: int
    hours: float
    scale: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """One file. Round trips follow from distances: fixed + per km x km, and p99 = p50 x factor; those of
    `links_rtt_p99_us`, by zone and site, are as they are.
    """

    name: str
    seed: int
    duration_s: int
    tick_s: int
    rtt_fixed_us: float
    rtt_us_per_km: float
    rtt_p99_factor: float
    carbon_kg_microcny: int
    zones: tuple[Zone, ...]
    sites: tuple[Site, ...]
    jobs: tuple[JobClass, ...]
    events: tuple[Event, ...]
    links_rtt_p99_us: Mapping[tuple[str, str], int]
    short: ShortForm
    sources: tuple[Source, ...]

    @property
    def node_count(self) -> int:
        """Of all sites."""
        return sum(group.count for site in self.sites for group in site.nodes)


def load(path: Path) -> Scenario:
    """Read a scenario file. With `based_on`, what it does not say is taken from that file beside it.

    Raises:
        ScenarioError: it cannot be read, a field is wrong, or a figure has no source.
    """
    raw = _mapping(path)
    if "based_on" in raw:
        base = raw.pop("based_on")
        if not isinstance(base, str):
            raise ScenarioError(f"based_on ({base!r}) must be the name of a file")
        below = _mapping(path.parent / base)
        if "based_on" in below:
            raise ScenarioError(f"based_on ({base}) is itself based on another; name that one")
        # The file's own sources come first: the first that names a figure counts.
        sources = [*_listed(raw.pop("sources", [])), *_listed(below.pop("sources", []))]
        raw = {**below, **raw, "sources": sources}
    return read(expanded(raw, path.parent))


def _listed(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ScenarioError(f"sources ({value!r}) must be a list")
    return value


def _mapping(path: Path) -> dict[str, object]:
    try:
        raw = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScenarioError(f"{path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise ScenarioError(f"{path} must be a mapping of fields")
    return raw


def read(raw: object) -> Scenario:
    """The same from the parsed YAML.

    Raises:
        ScenarioError: a field is wrong.
    """
    top = Fields(raw, "")
    sources = read_sources(top, raw)
    zones = top.items("zones", _zone)
    is_rented = top.whole("rent_counts", 1) == 1
    sites = top.items("sites", lambda f: _site(f) if is_rented else _owned(_site(f)))
    zone_ids, site_ids = _by_id(zones, "zones"), _by_id(sites, "sites")
    rtt = Fields(top.take("rtt"), "rtt")
    scenario = Scenario(
        name=top.text("name"),
        seed=top.whole("seed", 0),
        duration_s=round(top.number("duration_h") * 3600),
        tick_s=top.whole("tick_s", 60, least=1),
        rtt_fixed_us=rtt.number("fixed_us"),
        rtt_us_per_km=rtt.number("us_per_km"),
        rtt_p99_factor=rtt.number("p99_factor", least=1.0),
        carbon_kg_microcny=top.whole("carbon_kg_microcny", 80_000),
        zones=zones,
        sites=sites,
        jobs=top.items("jobs", lambda f: _job(f, {zone.id: zone for zone in zones})),
        events=top.items("events", lambda f: _event(f, site_ids, zone_ids), least=0),
        links_rtt_p99_us=dict(top.items("links", lambda f: _link(f, site_ids, zone_ids), least=0)),
        short=_short(Fields(top.take("short", {}), "short")),
        sources=sources,
    )
    rtt.end()
    top.end()
    if 3600 % scenario.tick_s:
        raise ScenarioError(f"tick_s ({scenario.tick_s}) must divide an hour, such as 10, 60 or 300")
    if scenario.duration_s < scenario.tick_s:
        raise ScenarioError(f"duration_h ({scenario.duration_s / 3600:g}) must be at least one tick")
    _by_id(scenario.jobs, "jobs", "name")
    return scenario


def _by_id(entries: Sequence[object], where: str, key: str = "id") -> dict[str, object]:
    found: dict[str, object] = {}
    for index, entry in enumerate(entries):
        name = getattr(entry, key)
        if name in found:
            raise ScenarioError(f"{where}[{index}].{key} ({name}) is there twice; give each its own")
        found[name] = entry
    return found


def _zone(f: Fields) -> Zone:
    return Zone(
        f.text("id"),
        f.number("latitude", least=-90),
        f.number("longitude", least=-180),
        f.whole("users", 1, least=1),
    )


def _site(f: Fields) -> Site:
    tier = f.text("tier", "edge")
    f.known("tier", tier, TIERS)
    return Site(
        id=f.text("id"),
        operator=f.text("operator"),
        tier=TIERS[tier],
        jurisdiction=f.text("jurisdiction", ""),
        latitude=f.number("latitude", least=-90),
        longitude=f.number("longitude", least=-180),
        pue_permille=f.whole("pue_permille", least=1000),
        pue_free_cooling_c=f.number("pue_free_cooling_c", 15.0, least=-60),
        pue_permille_per_c=f.number("pue_permille_per_c", 0.0),
        temperature_c=f.day("temperature_c", 20.0),
        energy_kwh_cny=f.day("energy_kwh_cny"),
        carbon_g_per_kwh=f.day("carbon_g_per_kwh"),
        cpu_core_hour_microcny=f.whole("cpu_core_hour_microcny"),
        memory_gib_hour_microcny=f.whole("memory_gib_hour_microcny", 0),
        nodes=f.items("nodes", _node_class),
    )


def _owned(site: Site) -> Site:
    """The site as its owner sees it: the machines are paid for, energy and carbon are not."""
    nodes = tuple(dataclasses.replace(group, accelerator_hour_microcny=0) for group in site.nodes)
    return dataclasses.replace(site, cpu_core_hour_microcny=0, memory_gib_hour_microcny=0, nodes=nodes)


def _node_class(f: Fields) -> NodeClass:
    accelerators = f.whole("accelerator_count", 0)
    return NodeClass(
        count=f.whole("count", least=1),
        arch=f.text("arch", "x86_64"),
        cores=f.whole("cores", least=1),
        memory_gib=f.whole("memory_gib", least=1),
        core_active_power_mw=f.whole("core_active_power_mw"),
        accelerator_model=f.text("accelerator_model") if accelerators else "",
        accelerator_count=accelerators,
        accelerator_active_power_mw=f.whole("accelerator_active_power_mw") if accelerators else 0,
        accelerator_hour_microcny=f.whole("accelerator_hour_microcny") if accelerators else 0,
    )


def _job(f: Fields, zones: Mapping[str, Zone]) -> JobClass:
    arrivals = Fields(f.take("arrivals"), f.at("arrivals"))
    trace, run_times = arrivals.numbers("at_s"), arrivals.numbers("run_s")
    per_hour = (0.0,) * 24 if trace else arrivals.day("per_hour")
    arrivals.end()
    if run_times and len(run_times) != len(trace):
        raise ScenarioError(
            f"{arrivals.at('run_s')} has {len(run_times)} values for {len(trace)} of at_s; give one each"
        )
    order = sorted(range(len(trace)), key=lambda index: trace[index])
    accelerator_milli = f.whole("accelerator_milli", 0)
    if accelerator_milli > 1000 and accelerator_milli % 1000:
        raise ScenarioError(
            f"{f.at('accelerator_milli')} ({accelerator_milli}) must be at most 1000, or whole thousands"
        )
    slo_budget_us = round(1000 * f.number("slo_budget_ms", 0.0))
    return JobClass(
        name=f.text("name"),
        tenant=f.text("tenant"),
        priority=f.whole("priority", 50, least=1),
        cpu_milli=f.whole("cpu_milli", least=1),
        memory_mib=f.whole("memory_mib", least=1),
        accelerator_milli=accelerator_milli,
        accelerator_models=f.texts("accelerator_models"),
        per_hour=per_hour,
        trace_s=tuple(trace[index] for index in order),
        trace_run_times_s=tuple(run_times[index] for index in order) if run_times else (),
        run_time_s=1.0 if run_times else f.number("run_time_s", least=1.0),
        is_run_time_fixed=f.whole("run_time_fixed", 0) == 1,
        start_s=f.number("start_s", 0.0),
        zones=tuple(id_ for id_ in f.names("zones", zones) for _ in range(zones[id_].users)),
        slo_budget_us=slo_budget_us,
        compute_us=round(1000 * f.number("compute_ms", 0.0)),
        client_us=round(1000 * f.number("client_ms", 0.0)),
        is_movable=f.whole("movable", int(slo_budget_us > 0)) == 1,
    )


def _link(f: Fields, sites: dict[str, object], zones: dict[str, object]) -> tuple[tuple[str, str], int]:
    zone, site = f.text("zone"), f.text("site")
    f.known("zone", zone, zones)
    f.known("site", site, sites)
    return (zone, site), round(1000 * f.number("rtt_p99_ms", least=0.001))


def _short(f: Fields) -> ShortForm:
    short = ShortForm(
        f.whole("from_h", 0), f.number("hours", 1.0, least=0.01), f.number("scale", 1.0, least=0.001)
    )
    f.end()
    return short


def _event(f: Fields, sites: dict[str, object], zones: dict[str, object]) -> Event:
    kind = f.text("kind")
    f.known("kind", kind, EVENTS)
    site, at_h, for_h = f.text("site"), f.number("at_h"), f.number("for_h")
    f.known("site", site, sites)
    zone = f.text("zone") if kind == "link_cut" else ""
    if zone:
        f.known("zone", zone, zones)
    extra_c = f.number("extra_c") if kind == "heat" else 0.0
    return Event(kind, round(at_h * 3600), round((at_h + for_h) * 3600), site, zone, extra_c)
