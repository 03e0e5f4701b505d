"""Power meters: what each source reads, what is believed, and what PUE is made of it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mumian.agent.v1.agent_pb2 import AgentReport, PowerReport
from mumian.api.v1.fleet_pb2 import (
    FIGURE_SOURCE_DECLARED,
    FIGURE_SOURCE_MEASURED,
    FIGURE_SOURCE_MODELLED,
    MeterReading,
    Pue,
)
from mumian_agent.agent.allocations import Allocations
from mumian_agent.agent.ports import Report
from mumian_agent.agent.site_reports import SiteReports
from mumian_agent.domain.config import AgentConfig, parse
from mumian_agent.domain.fields import ConfigError, Fields
from mumian_agent.domain.measured_pue import MeasuredPue
from mumian_agent.domain.meter_watch import MeterWatch
from mumian_agent.domain.power_config import power_of
from mumian_agent.runtime.contact import Contact
from mumian_agent.runtime.journal import Journal
from mumian_agent.runtime.power.http_meters import HttpJsonMeter, PrometheusMeter, RedfishMeter
from mumian_agent.runtime.power.meter import MeterError
from mumian_agent.runtime.power.rapl import RaplMeter, used_uj
from mumian_agent.runtime.power.site_power import SitePower, in_use
from mumian_agent.runtime.probing.prober import Prober

from tests.agent.bundles import folders_of
from tests.agent.one_node import accounts, one_node
from tests.agent.test_config import GOOD

# Whether a meter can be believed.


def watched(*readings_w: float, load_permille: int = 0) -> MeterWatch:
    """A meter that has given these readings, one every two seconds."""
    watch = MeterWatch()
    for number, watt in enumerate(readings_w):
        watch.read(round(watt * 1000), load_permille, 2.0 * number)
    return watch


def test_a_meter_that_goes_negative_is_not_believed_until_it_has_been_well_three_times() -> None:
    assert watched(200, 201, -5).fault == "reads -5.0 W, less than nothing"
    assert watched(200, 201, -5, 200, 201).fault
    assert not watched(200, 201, -5, 200, 201, 202).fault


def test_a_jump_is_not_believed_unless_the_meter_stays_there() -> None:
    steady = [200.0 + number for number in range(6)]
    assert watched(*steady, 9000).fault == "jumped from 202.5 W to 9000.0 W"
    assert watched(*steady, 3).fault == "jumped from 202.5 W to 3.0 W"
    assert watched(*steady, 9000, 3, 9000, 3, 9000, 3).fault, "it swings"
    assert not watched(*steady, *[9000.0 + number for number in range(8)]).fault, "a rack was switched on"


def test_a_meter_that_stands_still_is_not_believed_once_the_load_has_moved() -> None:
    assert not watched(*[200] * 100, load_permille=100).fault, "an idle machine takes what it takes"
    watch = watched(*[200] * 100, load_permille=100)
    watch.read(200_000, 700, 201.0)
    assert watch.fault == "has read 200.0 W for 201 s while the load moved"


def test_a_meter_that_stops_says_why() -> None:
    watch = watched(200)
    watch.failed("does not answer")
    assert watch.fault == "does not answer"


# PUE.


def test_average_and_marginal_pue_are_found_again_from_both_meters() -> None:
    pue = MeasuredPue(window_s=36_000)
    for second in range(0, 3600, 2):
        it_mw = 10_000_000 + (second // 60 % 10) * 1_000_000
        pue.add(float(second), it_mw, 3_000_000 + it_mw * 12 // 10)
    average, marginal = pue.average_permille(), pue.marginal_permille()
    assert average is not None and 1390 <= average <= 1415
    assert marginal is not None and 1195 <= marginal <= 1205


@pytest.mark.parametrize(
    ("it_step_mw", "facility_mw", "why"),
    [
        (0, 15_000_000, "an even load shows no slope"),
        (1_000_000, 25_000_000, "a meter that does not follow the load shows none"),
    ],
)
def test_no_marginal_pue_is_made_of_what_does_not_show_one(
    it_step_mw: int, facility_mw: int, why: str
) -> None:
    pue = MeasuredPue(window_s=36_000)
    for second in range(0, 3600, 2):
        pue.add(float(second), 10_000_000 + (second // 60 % 10) * it_step_mw, facility_mw)
    assert pue.average_permille() is not None
    assert pue.marginal_permille() is None, why


def test_meters_that_contradict_each_other_make_no_pue_and_old_readings_leave_the_window() -> None:
    pue = MeasuredPue(window_s=600)
    for second in range(0, 300, 2):
        pue.add(float(second), 10_000_000, 9_000_000)
    assert pue.average_permille() is None, "a facility takes at least what its IT takes"
    for second in range(1000, 1300, 2):
        pue.add(float(second), 10_000_000, 13_000_000)
    assert pue.average_permille() == 1300
    pue.forget(5000.0)
    assert pue.average_permille() is None


# RAPL.


@given(st.integers(1, 2**40), st.data())
def test_a_counter_that_begins_again_loses_nothing(range_uj: int, data: st.DataObject) -> None:
    before = data.draw(st.integers(0, range_uj))
    used = data.draw(st.integers(0, range_uj))
    assert used_uj(before, (before + used) % (range_uj + 1), range_uj) == used


def test_rapl_counts_packages_and_memory_once(tmp_path: Path) -> None:
    domains = {"0": "package-0", "0:0": "core", "0:1": "dram", "1": "package-1", "2": "psys"}
    for number, name in domains.items():
        folder = tmp_path / f"intel-rapl:{number}"
        folder.mkdir()
        for file, value in (("name", name), ("energy_uj", "900"), ("max_energy_range_uj", "999")):
            (folder / file).write_text(f"{value}\n")
    assert RaplMeter.find(tmp_path) is not None
    now_s = [0.0]
    counted = [tmp_path / f"intel-rapl:{number}" for number in ("0", "0:1", "1")]
    meter = RaplMeter(counted, lambda: now_s[0])
    for number in domains:
        (tmp_path / f"intel-rapl:{number}" / "energy_uj").write_text("400")  # has begun again: 500 counted
    now_s[0] = 0.5
    assert meter.power_mw() == 3  # 3 x 500 uJ in 0.5 s
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    now_s[0] = 1.0
    with pytest.raises(MeterError, match="cannot be read"):
        meter.power_mw()


def test_a_machine_without_rapl_has_no_such_meter(tmp_path: Path) -> None:
    assert RaplMeter.find(tmp_path) is None


# Meters that are asked over HTTP.


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, Any]]]:
    """A web server's address, and the documents that it has by path."""
    documents: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = documents.get(self.path.split("?")[0])
            self.send_response(404 if document is None else 200)
            self.end_headers()
            self.wfile.write(document if isinstance(document, bytes) else json.dumps(document).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as started:
        threading.Thread(target=started.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{started.server_port}", documents
        started.shutdown()


def test_a_number_is_read_from_a_json_document(server: tuple[str, dict[str, Any]]) -> None:
    url, documents = server
    meter = HttpJsonMeter(f"{url}/meter", "meters.0.power", 1_000_000)
    with pytest.raises(MeterError, match="answers 404"):
        meter.power_mw()
    documents["/meter"] = {"meters": [{"power": 12.3456789}]}
    assert meter.power_mw() == 12_345_679
    documents["/meter"] = {"meters": []}
    with pytest.raises(MeterError, match=r"has no 'meters\.0\.power'"):
        meter.power_mw()
    documents["/meter"] = b'{"meters": [{"power": NaN}]}'
    with pytest.raises(MeterError, match="no number"):
        meter.power_mw()
    documents["/meter"] = b"<html>"
    with pytest.raises(MeterError, match="cannot be asked"):
        meter.power_mw()


def test_prometheus_must_give_one_number(server: tuple[str, dict[str, Any]]) -> None:
    url, documents = server
    meter = PrometheusMeter(url, "sum(pdu_input_watts)", 1000)
    result: list[Any] = [{"metric": {}, "value": [1_700_000_000.1, "1234.5"]}]
    documents["/api/v1/query"] = {"status": "success", "data": {"resultType": "vector", "result": result}}
    assert meter.power_mw() == 1_234_500
    result.append(result[0])
    with pytest.raises(MeterError, match="gives 2 series"):
        meter.power_mw()
    documents["/api/v1/query"]["data"] = {"resultType": "scalar", "result": [1_700_000_000.1, "7"]}
    assert meter.power_mw() == 7000


def test_redfish_is_asked_the_new_way_and_then_the_old_one(server: tuple[str, dict[str, Any]]) -> None:
    url, documents = server
    documents["/redfish/v1/Chassis/1/EnvironmentMetrics"] = {"PowerWatts": {"Reading": 374}}
    assert RedfishMeter(url, "1").power_mw() == 374_000
    del documents["/redfish/v1/Chassis/1/EnvironmentMetrics"]
    meter = RedfishMeter(url, "1", "reader", "secret")
    with pytest.raises(MeterError, match="answers 404"):
        meter.power_mw()
    documents["/redfish/v1/Chassis/1/Power"] = {"PowerControl": [{"PowerConsumedWatts": 344.5}]}
    assert meter.power_mw() == 344_500
    documents["/redfish/v1/Chassis/1/Power"] = {"PowerControl": [{"PowerConsumedWatts": None}]}
    with pytest.raises(MeterError, match="reads None"):
        meter.power_mw()


# The site's power.


class ScriptedMeter:
    """Reads what the test says, or hangs."""

    def __init__(self, name: str, power_mw: int) -> None:
        self.name, self.mw = name, power_mw
        self.answers = threading.Event()
        self.answers.set()

    def power_mw(self) -> int:
        self.answers.wait()
        return self.mw


def used(readings: list[MeterReading]) -> str:
    reading = in_use(readings)
    return reading.name if reading else "none"


def test_a_meter_that_hangs_or_lies_is_replaced_by_the_next_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mumian_agent.runtime.power.site_power._ANSWER_WITHIN_S", 0.2)
    best, next_best = ScriptedMeter("redfish", 300_000), ScriptedMeter("rapl", 200_000)
    declared = Pue(average_permille=1300, marginal_permille=1200, source=FIGURE_SOURCE_DECLARED)
    power = SitePower([best, next_best], [], declared, 3600)
    assert used(power.read(0)) == "redfish"
    best.answers.clear()
    for _ in range(2):
        readings = power.read(0)
        assert (used(readings), readings[0].fault) == ("rapl", "does not answer")
    next_best.mw = -1
    assert used(power.read(0)) == "none"
    best.answers.set()
    found = [used(power.read(0)) for _ in range(5)]
    assert found[-1] == "redfish" and found[0] == "none"
    assert (power.pue().average_permille, power.pue().source) == (1300, FIGURE_SOURCE_DECLARED)


def test_pue_is_measured_once_both_sides_are(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr("mumian_agent.runtime.power.site_power.time.monotonic", lambda: now_s[0])
    monkeypatch.setattr("mumian_agent.runtime.power.site_power._ANSWER_WITHIN_S", 30.0)
    it, facility = ScriptedMeter("redfish", 300_000), ScriptedMeter("http", 450_000)
    declared = Pue(average_permille=1300, marginal_permille=1200, source=FIGURE_SOURCE_DECLARED)
    power = SitePower([it], [facility], declared, 3600)
    for now_s[0] in range(0, 80, 2):
        power.read(0)
    pue = power.pue()
    assert (pue.average_permille, pue.source) == (1500, FIGURE_SOURCE_MEASURED)
    assert (pue.marginal_permille, pue.marginal_source) == (1200, FIGURE_SOURCE_DECLARED)


class Sink:
    """Keeps the first report of power."""

    def __init__(self) -> None:
        self.power: asyncio.Future[PowerReport] = asyncio.get_running_loop().create_future()

    def put(self, slot: object, report: Report) -> None:
        if slot == "power" and isinstance(report, AgentReport) and not self.power.done():
            self.power.set_result(report.power)

    async def put_log(self, report: AgentReport) -> bool:
        return False


async def reported(config: AgentConfig, power: SitePower, folder: Path) -> PowerReport:
    """What a site's agent reports first of its power."""
    sink = Sink()
    nodes, energy = one_node("gz-edge", folder=folder), accounts()
    allocations = Allocations(Journal(folder), cast(Any, None), sink, nodes, energy, folders_of(folder))
    prober = Prober("gz-edge", {}, 200, 256, {})

    async def on_nodes(node_ids: Sequence[str]) -> None:
        pass

    reports = SiteReports(
        *(config, 1, nodes, allocations, energy, prober, sink, power, Contact(folder / "contact"), on_nodes)
    )
    running = asyncio.create_task(reports.run())
    try:
        return await sink.power
    finally:
        running.cancel()
        await asyncio.wait({running})
        prober.close()


async def test_the_report_of_a_site_has_its_meters_or_says_that_it_is_a_model(tmp_path: Path) -> None:
    config = parse(GOOD)
    meters = [ScriptedMeter("redfish", 300_000)], [ScriptedMeter("http", 450_000)]
    metered = await reported(config, SitePower(*meters, config.site.pue, 3600), tmp_path)
    assert (metered.it_power_mw, metered.facility_power_mw) == (300_000, 450_000)
    assert metered.source == FIGURE_SOURCE_MEASURED
    assert [each.name for each in metered.meters] == ["redfish", "http"]
    modelled = await reported(config, SitePower([], [], config.site.pue, 3600), tmp_path)
    assert modelled.source == FIGURE_SOURCE_MODELLED
    assert modelled.facility_power_mw == modelled.it_power_mw * 1250 // 1000


# Configuration.


def test_the_power_section_is_read_and_its_faults_are_named() -> None:
    raw = {"facility": [{"kind": "http", "url": "http://m/", "path": "w", "unit": "kW"}], "rapl": "ignore"}
    made = power_of(Fields(raw, "power"))
    assert (made.rapl, made.facility[0].mw_per_unit, made.redfish) == (False, 1_000_000, None)
    for wrong, told in (
        ({"facility": [{"kind": "modbus"}]}, r"power\.facility\[0\]\.kind"),
        ({"redfish": {"url": "10.0.0.1"}}, r"power\.redfish\.url .* must begin with http"),
        ({"facility": [{"kind": "prometheus", "url": "http://m"}]}, r"facility\[0\]\.query is missing"),
        ({"pue_window_s": 5}, r"power\.pue_window_s \(5\) must be 60 or more"),
    ):
        with pytest.raises(ConfigError, match=told):
            power_of(Fields(wrong, "power"))
