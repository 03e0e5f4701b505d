"""Jobs built in Python, and quantities in the units that people write."""

from __future__ import annotations

from typing import Any

import mumian
import pytest
from mumian import MumianError, quantities


@pytest.mark.parametrize(
    ("parse", "value", "expected"),
    [
        (quantities.cpu_milli, 0.5, 500),
        (quantities.cpu_milli, 2, 2000),
        (quantities.cpu_milli, "500m", 500),
        (quantities.cpu_milli, "1.5 cores", 1500),
        (quantities.memory_mib, "512MiB", 512),
        (quantities.memory_mib, "1.5GiB", 1536),
        (quantities.memory_mib, "2Gi", 2048),
        (quantities.memory_mib, "1GB", 954),
        (quantities.duration_us, "20ms", 20_000),
        (quantities.duration_us, "9.4ms", 9_400),
        (quantities.duration_us, "2h", 7_200_000_000),
        (quantities.duration_ms, "10m", 600_000),
        (quantities.bandwidth_kbps, "50Mbit/s", 50_000),
        (quantities.bandwidth_kbps, "1.5Gbps", 1_500_000),
        (quantities.accelerator_milli, 0.25, 250),
        (quantities.accelerator_milli, 4, 4000),
        (quantities.pue_permille, 1.25, 1250),
        (quantities.share_permille, "95%", 950),
        (quantities.share_permille, 0.995, 995),
        (quantities.money_microcny, "0.000001", 1),
        (quantities.rent_microcny_per_hour, 0.209, 209_000),
        (quantities.rent_microcny_per_hour, "0.20 CNY/h", 200_000),
    ],
)
def test_a_quantity_becomes_the_apis_integer(parse: Any, value: Any, expected: int) -> None:
    assert parse(value) == expected


@pytest.mark.parametrize(
    ("group", "field", "advice"),
    [
        ({"memory": 512}, "memory", "512MiB"),
        ({"memory": "512mib"}, "memory", "write 512MiB"),
        ({"cpu": -1}, "cpu", "such as 0.5"),
        ({"cpu": True}, "cpu", "such as 0.5"),
        ({"cpu": 0.0001}, "cpu", "three decimals"),
        ({"cpu": "9" * 30}, "cpu", "more than"),
        ({"cpu": "nan"}, "cpu", "such as 0.5"),
        ({"accelerators": 1.5}, "accelerators", "0.999, 1 or 2"),
        ({"accelerators": 0}, "accelerators", "leave accelerators out"),
        ({"accelerator_models": ["H100"]}, "accelerator_models", "say how many"),
        ({"time_limit": 10}, "time_limit", "10m"),
        ({"compute": "fast"}, "compute", "20ms"),
        ({"count": 0}, "count", "from 1 to 1000"),
        ({"spread": {"room": 1}}, "spread", "use node, switch, rack, site, operator"),
        ({"spread": {"site": 0}}, "spread[site]", "from 1 to 1000"),
        ({"together": "city"}, "together", "use node, switch, rack, site, operator"),
        ({"apart_from": {"world": "city"}}, "apart_from[world]", "use node, switch, rack, site, operator"),
        ({"near": {"world": 5}}, "near[world]", "20ms"),
        ({"traffic": {"z": "50mbit/s"}}, "traffic[z]", "write 50Mbit/s"),
        ({"traffic": {"z": "0Mbit/s"}}, "traffic[z]", "must be positive"),
        ({"port": 70000}, "port", "65535"),
        ({"archs": "arm64"}, "archs", "['arm64']"),
        ({"name": "A B"}, "name", "write a-b"),
        ({"entry_point": "a:b"}, "command", "set exactly one"),
    ],
)
def test_a_wrong_value_names_the_field_the_value_and_advice(
    group: dict[str, Any], field: str, advice: str
) -> None:
    with pytest.raises(MumianError) as caught:
        mumian.task_group(**{"command": ["x"], **group})
    assert caught.value.reason == "INVALID_FIELD"
    assert caught.value.field_violations[0].field == field
    assert advice in caught.value.message


@pytest.mark.parametrize(
    ("rent_max", "advice"),
    [
        (-0.2, "such as 0.2"),
        (float("nan"), "such as 0.2"),
        ("cheap", "such as 0.2"),
        ("0.2 USD", "such as 0.2"),
        (0, "leave it out to take any rent"),
        ("0.0000001", "six decimals"),
        ("9999999", "more than can be asked for"),
    ],
)
def test_a_wrong_rent_ceiling_is_named_with_advice(rent_max: Any, advice: str) -> None:
    with pytest.raises(MumianError, match=advice) as caught:
        mumian.job("job", mumian.task_group(command="x"), rent_max=rent_max)
    assert caught.value.field_violations[0].field == "rent_max"


def test_a_wrong_job_is_refused_in_the_same_way() -> None:
    wrong: dict[str, Any] = {"name": "Bad Name", "kind": "cron", "priority": 101, "pue_max": 0.9}
    for field, value in wrong.items():
        with pytest.raises(MumianError, match=f"INVALID_FIELD: {field}"):
            mumian.job(**{"name": "job", field: value})
    with pytest.raises(MumianError, match="task_groups is empty"):
        mumian.job("job")


def test_a_disconnect_contract_says_only_what_it_was_told() -> None:
    assert not mumian.on_disconnect().ListFields()
    made = mumian.on_disconnect(lost_after="0s", stop_after="2m", replace=False, reconcile="keep_original")
    assert (made.lost_after_s, made.stop_after_s, made.replace) == (0, 120, False)
    assert made.HasField("lost_after_s")
    with pytest.raises(MumianError, match="use best_score"):
        mumian.on_disconnect(reconcile="newest")


def test_what_resources_leave_out_gets_its_default() -> None:
    group = mumian.task_group(command="echo", accelerators=1)
    assert (group.resources.cpu_milli, group.resources.memory_mib) == (1000, 256)
    assert mumian.task_group(command="echo", cpu=0).resources.cpu_milli == 0
