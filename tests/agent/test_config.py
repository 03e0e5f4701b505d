"""A site's configuration: what it means, and what is said of a wrong one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from mumian.api.v1 import fleet_pb2
from mumian_agent.domain.config import parse
from mumian_agent.domain.fields import ConfigError
from mumian_agent.domain.hours import forecast_from
from mumian_agent.main.cli import main

GOOD: dict[str, Any] = {
    "site": {
        "id": "gz-edge",
        "operator_id": "op",
        "tier": "edge",
        "jurisdiction": "CN-GD-GZ",
        "pue": {"average": 1.25, "marginal": 1.15},
        "prices": {"cpu_core_hour_cny": 0.2, "accelerator_hour_cny": {"H100": 12.5}},
    },
    "state_dir": "/tmp/nowhere",
    "node": {"cpu_limit": 1.5, "labels": {"gen": 3}, "accelerators": [{"model": "H100", "count": 2}]},
    "reflector": {"listen": "127.0.0.1:9100"},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good configuration with one field set; None takes it away."""
    raw = copy.deepcopy(GOOD)
    *above, last = path.split(".")
    section = raw
    for name in above:
        section = section.setdefault(name, {})
    section[last] = value
    if value is None:
        del section[last]
    return raw


def test_decimals_become_exact_whole_units() -> None:
    config = parse(GOOD)
    assert config.site.pue == fleet_pb2.Pue(
        average_permille=1250,
        marginal_permille=1150,
        source=fleet_pb2.FIGURE_SOURCE_DECLARED,
        marginal_source=fleet_pb2.FIGURE_SOURCE_DECLARED,
    )
    assert config.site.prices.cpu_core_hour_microcny == 200_000
    assert config.site.prices.accelerator_hour_microcny["H100"] == 12_500_000
    assert config.node.cpu_milli_limit == 1500
    assert config.node.labels == {"gen": "3"}
    assert config.reflector_advertised == "127.0.0.1:9100"
    assert (config.reflector_grpc_listen, config.reflector_grpc_asked) == ("127.0.0.1:9100", False)


def test_limits_of_power_and_links_are_none_unless_they_are_given() -> None:
    assert (parse(GOOD).site.power_cap_mw, parse(GOOD).bandwidth_kbps) == (0, {})
    assert parse(changed("site.power_cap_kw", 92.5)).site.power_cap_mw == 92_500_000
    assert parse(changed("bandwidth_mbps.tianhe", 1000)).bandwidth_kbps == {"tianhe": 1_000_000}


def test_the_marginal_pue_is_the_average_where_it_is_not_given() -> None:
    assert parse(changed("site.pue.marginal", None)).site.pue.marginal_permille == 1250


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("site.id", None, "site.id is missing"),
        ("site.id", "Gz Edge", "site.id ('Gz Edge') is no valid name"),
        ("site.tier", "town", "site.tier ('town') is unknown; use one of city, edge, hub"),
        ("site.pue.average", 0.9, "site.pue.average (0.9) must be from 1.0 to 10"),
        ("site.prices.cpu_core_hour_cny", -1, "site.prices.cpu_core_hour_cny (-1) must be 0 or more"),
        ("site.prices.energy_kwh_cny", "dear", "site.prices.energy_kwh_cny ('dear') must be a number"),
        (
            "site.hours_of_day",
            [{"energy_kwh_cny": 1, "carbon_g_per_kwh": 5}],
            "site.hours_of_day (1 hours) must be 24",
        ),
        ("site.hours_of_day", [{"energy_kwh_cny": 1}], "site.hours_of_day[0].carbon_g_per_kwh is missing"),
        ("site.utc_offset_h", 15, "site.utc_offset_h (15) must be -12 to 14"),
        ("node.cpu_limits", 2, "node.cpu_limits is unknown; did you mean cpu_limit?"),
        ("node.memory_limit_mib", 0, "node.memory_limit_mib (0) must be 1 or more"),
        ("node.accelerators", [{"kind": "tpu", "model": "x"}], "node.accelerators[0].kind ('tpu')"),
        ("reflector.listen", "9100", "reflector.listen ('9100') must be host:port"),
        ("probe.window", 3, "probe.window (3) must be 20 or more"),
        ("probe.packets_per_second_max", 0, "probe.packets_per_second_max (0) must be 1 or more"),
        ("site.power_cap_kw", -5, "site.power_cap_kw (-5) must be 0 or more"),
        ("bandwidth_mbps.tianhe", "wide", "bandwidth_mbps.tianhe ('wide') must be a number"),
        ("routes.tianhe", "nowhere", "routes.tianhe ('nowhere') must be host:port"),
        ("coordinater", "x:1", "coordinater is unknown; did you mean coordinator?"),
        ("node", [1], "node ([1]) must be a mapping"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_advice(path: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(changed(path, value))
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["site: [", "just words", "", yaml.safe_dump(changed("site.tier", "x"))])
def test_the_command_refuses_a_bad_file_in_one_line_with_status_2(tmp_path: Path, text: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    result = CliRunner().invoke(main, ["run", "--config", str(path)])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(path) in result.stderr


def test_the_command_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["run", "--config", str(tmp_path / "none.yaml")])
    assert (result.exit_code, "No such file" in result.stderr) == (2, True)


def test_hours_of_the_day_become_a_forecast_from_this_hour_on() -> None:
    hours = [
        {"energy_kwh_cny": 0.1 * hour, "carbon_g_per_kwh": 100 + hour, "rent": 0.5} for hour in range(24)
    ]
    config = parse(changed("site.hours_of_day", hours))
    assert config.hours_of_day[3].energy_kwh_microcny == 300_000
    assert config.hours_of_day[3].rent_permille == 500
    # 16:20 UTC is 00:20 in China.
    forecast = forecast_from(16 * 3600 + 1200, config.hours_of_day, utc_offset_h=8)
    assert forecast.first_hour_unix_s == 16 * 3600
    assert [hour.carbon_g_per_kwh for hour in forecast.hours[:25]] == [*range(100, 124), 100]
