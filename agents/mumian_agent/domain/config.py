"""What an agent is told about its site."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from mumian.api.v1.fleet_pb2 import (
    FIGURE_SOURCE_DECLARED,
    TIER_CITY,
    TIER_EDGE,
    TIER_HUB,
    HourForecast,
    Pue,
    Site,
)
from mumian.api.v1.resources_pb2 import Accelerator

from mumian_agent.domain.fields import ConfigError, Fields, checked_reflector
from mumian_agent.domain.hours import HOURS_OF_DAY
from mumian_agent.domain.power_config import PowerConfig, power_of

_TIERS = {"city": TIER_CITY, "edge": TIER_EDGE, "hub": TIER_HUB}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MICRO = 1_000_000
LOOPBACK_ONLY = "127.0.0.1:0"
NOWHERE = "none"
# In the environment of a node: where it is in its site, where its configuration does not say it.
SWITCH_VARIABLE, RACK_VARIABLE = "MUMIAN_SWITCH", "MUMIAN_RACK"


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The site's machine, as far as it cannot be read from the machine itself."""

    labels: Mapping[str, str] = field(default_factory=dict)
    cpu_milli_limit: int | None = None  # None: all cores
    memory_mib_limit: int | None = None  # None: all memory
    core_active_power_mw: int = 5000
    container_engine: str = "auto"  # "auto", "none", or an engine's name or path
    isolation: str = "auto"  # tasks do not see the agent's folders, where that can be had; or "none"
    accelerators: tuple[Accelerator, ...] = ()  # none: what the vendors' tools find
    detects_accelerators: bool = True
    # What processes use that are nobody's task is not offered.
    yields_to_others: bool = True
    idle_power_mw: int | None = None  # None: learned from the node's meter
    # Where it is in its site, by the site's own names; empty: not known.
    switch: str = ""
    rack: str = ""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """One site and how its agent is to run."""

    site: Site
    coordinators: tuple[str, ...]  # host:port each; any of them will do
    state_dir: Path
    node: NodeConfig
    reflector_listen: str  # host:port
    reflector_advertised: str  # as peers see it: host:port, or grpc://host:port
    routes: Mapping[str, str]  # probe target's id -> (grpc://)host:port to use in place of its own
    bandwidth_kbps: Mapping[str, int]  # zone's id -> what tasks may reserve of the link from it
    probe_interval_ms: int = 200
    probe_window: int = 256
    probe_window_s: int = 300
    probe_packets_per_second_max: int = 200  # of the site, to all targets together
    ray_num_cpus: int | None = None  # None: as many as the node's limit
    ray_listen: str = LOOPBACK_ONLY  # host:port; further nodes need an address that they reach, and a port
    warm_workers: int = 1  # on each node
    stop_grace_ms: int = 5000  # from SIGTERM to SIGKILL
    hours_of_day: tuple[HourForecast, ...] = ()  # from midnight at the site; none: the same at any hour
    utc_offset_h: int = 0
    power: PowerConfig = field(default_factory=PowerConfig)
    reflector_grpc_listen: str | None = None  # host:port by TCP; None: it answers by UDP only
    reflector_grpc_asked: bool = False  # in so many words; otherwise it does without where that is taken


def parse(raw: object) -> AgentConfig:
    """The configuration in what a YAML file holds.

    Raises:
        ConfigError: a field is missing, unknown or wrong.
    """
    top = Fields(raw)
    site_fields = top.section("site")
    hours_of_day, utc_offset_h = _hours(site_fields)
    site = _site(site_fields)
    reflector = top.section("reflector")
    listen = reflector.address("listen")
    probe = top.section("probe")
    ray = top.section("ray")
    config = AgentConfig(
        site=site,
        coordinators=top.addresses("coordinator", "127.0.0.1:7070"),
        state_dir=Path(top.text("state_dir")).expanduser().absolute(),
        node=node_of(top.section("node")),
        reflector_listen=listen,
        reflector_advertised=checked_reflector("reflector.advertise", reflector.text("advertise", listen)),
        reflector_grpc_listen=_grpc_listen(reflector, listen),
        reflector_grpc_asked="grpc_listen" in reflector.names(),
        routes=_routes(top.section("routes")),
        bandwidth_kbps=_bandwidth(top.section("bandwidth_mbps")),
        probe_interval_ms=probe.whole("interval_ms", 200, least=1),
        probe_window=probe.whole("window", 256, least=20),
        probe_window_s=probe.whole("window_s", 300, least=10),
        probe_packets_per_second_max=probe.whole("packets_per_second_max", 200, least=1),
        ray_num_cpus=ray.optional_whole("num_cpus", least=1),
        ray_listen=ray.address("listen") if "listen" in ray.names() else LOOPBACK_ONLY,
        warm_workers=ray.whole("warm_workers", 1),
        stop_grace_ms=top.whole("stop_grace_ms", 5000),
        hours_of_day=hours_of_day,
        utc_offset_h=utc_offset_h,
        power=power_of(top.section("power")),
    )
    for section in (reflector, probe, ray, top):
        section.finish()
    return config


def _grpc_listen(reflector: Fields, listen: str) -> str | None:
    """Peers that UDP does not reach call the same host and port, so that is where it is heard by default."""
    if reflector.text("grpc_listen", listen) == NOWHERE:
        return None
    return reflector.address("grpc_listen", listen)


def is_name(text: str) -> bool:
    """Whether a site or a node may be called so."""
    return _NAME.fullmatch(text) is not None


def _site(fields: Fields) -> Site:
    site = Site(
        id=fields.text("id"),
        operator_id=fields.text("operator_id"),
        tier=_TIERS[fields.choice("tier", _TIERS)],
        jurisdiction=fields.text("jurisdiction"),
        pue=_pue(fields.section("pue")),
        carbon_g_per_kwh=fields.whole("carbon_g_per_kwh", 0),
        power_cap_mw=fields.scaled("power_cap_kw", _MICRO, 0),
    )
    if not is_name(site.id):
        raise ConfigError(
            f"site.id ({site.id!r}) is no valid name; use a-z, 0-9 and -, at most 63, such as gz-edge"
        )
    prices = fields.section("prices")
    site.prices.cpu_core_hour_microcny = prices.scaled("cpu_core_hour_cny", _MICRO, 0)
    site.prices.memory_gib_hour_microcny = prices.scaled("memory_gib_hour_cny", _MICRO, 0)
    site.prices.energy_kwh_microcny = prices.scaled("energy_kwh_cny", _MICRO, 0)
    site.prices.egress_gib_microcny = prices.scaled("egress_gib_cny", _MICRO, 0)
    by_model = prices.section("accelerator_hour_cny")
    for model in by_model.names():
        site.prices.accelerator_hour_microcny[model] = by_model.scaled(model, _MICRO)
    prices.finish()
    fields.finish()
    return site


def _hours(fields: Fields) -> tuple[tuple[HourForecast, ...], int]:
    """Energy, carbon and rent by hour of the day, and how far the site's clock is ahead of UTC."""
    hours = []
    for entry in fields.sections("hours_of_day"):
        rent = entry.number("rent", 1)
        assert rent is not None
        hours.append(
            HourForecast(
                energy_kwh_microcny=entry.scaled("energy_kwh_cny", _MICRO),
                carbon_g_per_kwh=entry.whole("carbon_g_per_kwh"),
                rent_permille=round(rent * 1000),
            )
        )
        if not 0 < hours[-1].rent_permille <= 10_000:
            raise ConfigError(f"{entry.path('rent')} ({rent}) must be from 0.001 to 10, a part of the rent")
        entry.finish()
    utc_offset_h = fields.whole("utc_offset_h", 0, least=-12)
    if utc_offset_h > 14:
        raise ConfigError(f"{fields.path('utc_offset_h')} ({utc_offset_h}) must be -12 to 14; China has 8")
    if len(hours) not in (0, HOURS_OF_DAY):
        raise ConfigError(
            f"{fields.path('hours_of_day')} ({len(hours)} hours) must be 24, from midnight at the site"
        )
    return tuple(hours), utc_offset_h


def _pue(fields: Fields) -> Pue:
    average, marginal = fields.number("average"), fields.number("marginal", None)
    assert average is not None
    pue = Pue(
        average_permille=round(average * 1000),
        marginal_permille=round((average if marginal is None else marginal) * 1000),
        source=FIGURE_SOURCE_DECLARED,
        marginal_source=FIGURE_SOURCE_DECLARED,
    )
    for name, permille in (("average", pue.average_permille), ("marginal", pue.marginal_permille)):
        if not 1000 <= permille <= 10_000:
            raise ConfigError(
                f"{fields.path(name)} ({Decimal(permille) / 1000}) must be from 1.0 to 10; "
                "a facility takes at least what its IT takes"
            )
    fields.finish()
    return pue


def node_of(fields: Fields) -> NodeConfig:
    """The section `node`, also alone in the file of a further node.

    Raises:
        ConfigError: a field is missing, unknown or wrong.
    """
    cpu_limit = fields.number("cpu_limit", None)
    if cpu_limit is not None and cpu_limit * 1000 < 1:
        raise ConfigError(f"{fields.path('cpu_limit')} ({cpu_limit}) must be at least 0.001 cores")
    idle_power_w = fields.number("idle_power_w", None)
    node = NodeConfig(
        labels=fields.texts("labels"),
        cpu_milli_limit=None if cpu_limit is None else int(cpu_limit * 1000),
        memory_mib_limit=fields.optional_whole("memory_limit_mib", least=1),
        core_active_power_mw=fields.scaled("core_active_power_w", 1000, 5),
        accelerators=tuple(_accelerator(entry) for entry in fields.sections("accelerators")),
        container_engine=fields.text("container_engine", "auto"),
        isolation=fields.choice("isolation", ("auto", "none"), "auto"),
        detects_accelerators=fields.choice("detect_accelerators", ("auto", "never"), "auto") == "auto",
        yields_to_others=fields.choice("others", ("withhold", "ignore"), "withhold") == "withhold",
        idle_power_mw=None if idle_power_w is None else round(idle_power_w * 1000),
        switch=fields.text("switch", ""),
        rack=fields.text("rack", ""),
    )
    fields.finish()
    return node


def _accelerator(fields: Fields) -> Accelerator:
    accelerator = Accelerator(
        kind=fields.choice("kind", ("gpu", "npu"), "gpu"),
        model=fields.text("model"),
        count=fields.whole("count", 1, least=1),
        active_power_mw=fields.scaled("active_power_w", 1000, 0),
    )
    fields.finish()
    return accelerator


def _bandwidth(fields: Fields) -> Mapping[str, int]:
    return {zone: fields.scaled(zone, 1000) for zone in fields.names()}


def _routes(fields: Fields) -> Mapping[str, str]:
    return {target: checked_reflector(fields.path(target), fields.text(target)) for target in fields.names()}
