"""Which meters a site has: those that its configuration names, and those that the machine shows."""

from __future__ import annotations

from pathlib import Path

from mumian_agent.domain.config import AgentConfig
from mumian_agent.domain.fields import ConfigError
from mumian_agent.domain.power_config import FacilityConfig, RedfishConfig
from mumian_agent.runtime.power.http_meters import HttpJsonMeter, PrometheusMeter, RedfishMeter
from mumian_agent.runtime.power.meter import Meter
from mumian_agent.runtime.power.rapl import RaplMeter
from mumian_agent.runtime.power.site_power import SitePower


def power_of_site(config: AgentConfig) -> SitePower:
    """Best first: a server's own meter sees all of it, RAPL its processors and their memory only.

    RAPL counts the whole machine, so a slice of one (`node.cpu_limit`) does not use it.

    Raises:
        ConfigError: a file that it names cannot be read.
    """
    power = config.power
    it: list[Meter] = [_redfish(power.redfish)] if power.redfish else []
    is_slice = config.node.cpu_milli_limit is not None
    rapl = RaplMeter.find() if power.rapl and not is_slice else None
    if rapl:
        it.append(rapl)
    return SitePower(it, [_facility(each) for each in power.facility], config.site.pue, power.pue_window_s)


def _redfish(config: RedfishConfig) -> RedfishMeter:
    try:
        password = Path(config.password_file).read_text().strip() if config.password_file else ""
        return RedfishMeter(
            config.url, config.chassis, config.username, password, ca_file=config.ca_file or None
        )
    except OSError as error:
        raise ConfigError(
            f"power.redfish: {config.password_file or config.ca_file}: {error.strerror}"
        ) from None


def _facility(config: FacilityConfig) -> Meter:
    made = HttpJsonMeter if config.kind == "http" else PrometheusMeter
    return made(config.url, config.what, config.mw_per_unit)
