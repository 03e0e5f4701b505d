"""What a scenario file says: places, machines, prices, work, and what goes wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from mumian_orchestrator.bench.sim.datasets import expanded
from mumian_orchestrator.bench.sim.fields import Fields, ScenarioError
from mumian_orchestrator.bench.sim.jobs import JobClass, read_job
from mumian_orchestrator.bench.sim.offers import Offers
from mumian_orchestrator.bench.sim.sources import Source, read_sources
from mumian_orchestrator.domain.job_spec import ARCHS

TIERS = {"city": 1, "edge": 2, "hub": 3}
EVENTS = {"site_loss": "site", "link_cut": "link", "heat": "site", "congestion": "site", "drain": "site"}


@dataclass(frozen=True, slots=True)
class Zone:
    """Where users are, in degrees; `users` is its weight among the zones."""

    id: str
    latitude: float
    longitude: float
    users: int


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Alike machines of a site.

    Args:
        labels: by name, what jobs may ask for.
        idle_power_mw: of one machine that is on, whatever runs on it.
        sleeps: a machine on which nothing runs is off.
    """

    count: int
    arch: str
    labels: tuple[tuple[str, str], ...]
    cores: int
    memory_gib: int
    core_active_power_mw: int
    idle_power_mw: int
    sleeps: bool
    accelerator_kind: str
    accelerator_model: str
    accelerator_count: int
    accelerator_active_power_mw: int
    accelerator_hour_microcny: int

    def __str__(self) -> str:
        devices = f", {self.accelerator_count} {self.accelerator_model}" if self.accelerator_count else ""
        return f"{self.cores} cores, {self.memory_gib:,} GiB{devices}"


@dataclass(frozen=True, slots=True)
class Site:
    """One site. Its PUE grows by `pue_permille_per_c` for each degree above `pue_free_cooling_c`.

    All that is by hour has 24 values.

    Args:
        link_mbps: what its link to each zone carries; 0: no limit, so it is never congested.
        link_others: the share of it that others fill.
        more_nodes_max: how many more machines it has room and power for; None: any number.
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
    link_mbps: float
    link_others: tuple[float, ...]
    more_nodes_max: int | None
    nodes: tuple[NodeClass, ...]

    def pue_at(self, hour: int, extra_c: float = 0.0) -> int:
        """PUE in permille at an hour since the start, on a day that is so much warmer."""
        above_c = max(0.0, self.temperature_c[hour % 24] + extra_c - self.pue_free_cooling_c)
        return round(self.pue_permille + self.pue_permille_per_c * above_c)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that goes wrong for a while: a site is lost, a zone's link is cut, a site is warmer, or
    others fill more of its links; or somebody drains the site: what runs goes on, and nothing more comes.
    """

    kind: str
    at_s: int
    end_s: int
    site: str
    zone: str = ""
    extra_c: float = 0.0
    extra_share: float = 0.0


@dataclass(frozen=True, slots=True)
class ShortForm:
    """A part of the scenario that runs in seconds: so many hours from one on, at a share of its size."""

    from_h: int
    hours: float
    scale: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """One file. Round trips follow from distances: fixed + per km x km, and p99 = p50 x factor; those of
    `links_rtt_p99_us`, by zone and site, are as they are. Load comes on top; see `links.py`.

    Args:
        about: what happens in it, for somebody who reads a report.
        reservable_share: of a link's bandwidth, what others and the tasks that reserve it may fill together.
    """

    name: str
    about: str
    seed: int
    duration_s: int
    tick_s: int
    rtt_fixed_us: float
    rtt_us_per_km: float
    rtt_p99_factor: float
    rtt_queue_us: float
    reservable_share: float
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
    sites = top.items("sites", lambda f: read_site(f) if is_rented else _owned(read_site(f)))
    zone_ids, site_ids = _by_id(zones, "zones"), _by_id(sites, "sites")
    rtt = Fields(top.take("rtt"), "rtt")
    scenario = Scenario(
        name=top.text("name"),
        about=top.text("about", ""),
        seed=top.whole("seed", 0),
        duration_s=round(top.number("duration_h") * 3600),
        tick_s=top.whole("tick_s", 60, least=1),
        rtt_fixed_us=rtt.number("fixed_us"),
        rtt_us_per_km=rtt.number("us_per_km"),
        rtt_p99_factor=rtt.number("p99_factor", least=1.0),
        rtt_queue_us=rtt.number("queue_us", 0.0),
        reservable_share=rtt.number("reservable_share", 0.8),
        carbon_kg_microcny=top.whole("carbon_kg_microcny", 80_000),
        zones=zones,
        sites=sites,
        jobs=top.items("jobs", lambda f: read_job(f, {zone.id: zone for zone in zones})),
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
    offers = _offers(sites)
    for number, job in enumerate(scenario.jobs):
        offers.check(Fields({}, f"jobs[{number}]"), job)
    return scenario


def _offers(sites: Sequence[Site]) -> Offers:
    machines = [group for site in sites for group in site.nodes]
    return Offers(
        operators={site.operator for site in sites},
        jurisdictions={site.jurisdiction for site in sites if site.jurisdiction},
        labels={name for machine in machines for name, _ in machine.labels},
        models={machine.accelerator_model for machine in machines if machine.accelerator_model},
    )


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


def read_site(f: Fields) -> Site:
    """One entry of `sites`.

    Raises:
        ScenarioError: a field is wrong.
    """
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
        link_mbps=f.number("link_mbps", 0.0),
        link_others=f.day("link_others", 0.0),
        more_nodes_max=f.whole("more_nodes_max", 0) if f.has("more_nodes_max") else None,
        nodes=f.items("nodes", _node_class),
    )


def _owned(site: Site) -> Site:
    """The site as its owner sees it: the machines are paid for, energy and carbon are not."""
    nodes = tuple(dataclasses.replace(group, accelerator_hour_microcny=0) for group in site.nodes)
    return dataclasses.replace(site, cpu_core_hour_microcny=0, memory_gib_hour_microcny=0, nodes=nodes)


def _node_class(f: Fields) -> NodeClass:
    accelerators, arch = f.whole("accelerator_count", 0), f.text("arch", "x86_64")
    f.known("arch", arch, {known: known for known in ARCHS})
    return NodeClass(
        count=f.whole("count", least=1),
        arch=arch,
        labels=f.texts_by_name("labels"),
        cores=f.whole("cores", least=1),
        memory_gib=f.whole("memory_gib", least=1),
        core_active_power_mw=f.whole("core_active_power_mw"),
        idle_power_mw=f.whole("idle_power_mw", 0),
        sleeps=f.whole("sleeps", 0) == 1,
        accelerator_kind=f.text("accelerator_kind", "gpu") if accelerators else "",
        accelerator_model=f.text("accelerator_model") if accelerators else "",
        accelerator_count=accelerators,
        accelerator_active_power_mw=f.whole("accelerator_active_power_mw") if accelerators else 0,
        accelerator_hour_microcny=f.whole("accelerator_hour_microcny") if accelerators else 0,
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
    extra_share = f.number("extra_share") if kind == "congestion" else 0.0
    return Event(kind, round(at_h * 3600), round((at_h + for_h) * 3600), site, zone, extra_c, extra_share)
