"""What an agent is told about the site's power meters."""

from __future__ import annotations

from dataclasses import dataclass

from mumian_agent.domain.fields import ConfigError, Fields

_MW_PER_UNIT = {"mW": 1, "W": 1000, "kW": 1_000_000}


@dataclass(frozen=True, slots=True)
class RedfishConfig:
    """The board controller of the node."""

    url: str
    chassis: str
    username: str
    password_file: str
    ca_file: str


@dataclass(frozen=True, slots=True)
class FacilityConfig:
    """The site's meter, by HTTP."""

    kind: str  # "http", "prometheus"
    url: str
    what: str  # a path in the JSON document, or a query
    mw_per_unit: int


@dataclass(frozen=True, slots=True)
class PowerConfig:
    """Which meters there are. RAPL is looked for, unless it is to be ignored."""

    rapl: bool = True
    redfish: RedfishConfig | None = None
    facility: tuple[FacilityConfig, ...] = ()
    pue_window_s: int = 3600


def power_of(fields: Fields) -> PowerConfig:
    """The section `power`.

    Raises:
        ConfigError: a field is missing, unknown or wrong.
    """
    made = PowerConfig(
        rapl=fields.choice("rapl", ("auto", "ignore"), "auto") == "auto",
        redfish=_redfish(fields.section("redfish")) if "redfish" in fields.names() else None,
        facility=tuple(_facility(entry) for entry in fields.sections("facility")),
        pue_window_s=fields.whole("pue_window_s", 3600, least=60),
    )
    fields.finish()
    return made


def _redfish(fields: Fields) -> RedfishConfig:
    made = RedfishConfig(
        url=_url(fields, "url"),
        chassis=fields.text("chassis", "1"),
        username=fields.text("username", ""),
        password_file=fields.text("password_file", ""),
        ca_file=fields.text("ca_file", ""),
    )
    fields.finish()
    return made


def _facility(fields: Fields) -> FacilityConfig:
    kind = fields.choice("kind", ("http", "prometheus"))
    made = FacilityConfig(
        kind=kind,
        url=_url(fields, "url"),
        what=fields.text("path" if kind == "http" else "query"),
        mw_per_unit=_MW_PER_UNIT[fields.choice("unit", _MW_PER_UNIT, "W")],
    )
    fields.finish()
    return made


def _url(fields: Fields, name: str) -> str:
    url = fields.text(name)
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{fields.path(name)} ({url!r}) must begin with http:// or https://")
    return url
