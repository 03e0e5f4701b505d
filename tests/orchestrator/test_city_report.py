"""The city's report on centres: PUE against ceilings, what a retrofit saves, who is large; CSV and HTML."""

from __future__ import annotations

import csv
import io

import pytest
from mumian.api.v1.fleet_pb2 import Node, Site
from mumian_orchestrator.domain.money.city_report import CityReport
from mumian_orchestrator.domain.money.document import kind_of, read
from mumian_orchestrator.domain.money.pue_policy import PuePolicy, read_pue_policy
from mumian_orchestrator.domain.money.registry import Registry
from mumian_orchestrator.domain.periods import start_ms

POLICY = """
kind: pue
ceilings:
  - {region: CN-GD, pue: 1.3}
  - {region: CN-GD-GZ, pue: 1.5, built_until: 2020-12-31}
  - {region: CN-GD-GZ, pue: 1.25, built_from: 2021-01-01}
sites:
  - {id: old, built: 2016-05-01}
  - {id: new, built: 2024-05-01}
retrofit_pue: 1.15
"""


def policy() -> PuePolicy:
    fields = read(POLICY)
    kind_of(fields)
    return read_pue_policy(fields)


def site(site_id: str, pue_permille: int, jurisdiction: str = "CN-GD-GZ") -> Site:
    """One whose IT draws a megawatt, at CNY 0.7 and 500 g CO2 a kWh."""
    made = Site(id=site_id, jurisdiction=jurisdiction, it_power_mw=1_000_000_000, carbon_g_per_kwh=500)
    made.pue.average_permille = pue_permille
    made.prices.energy_kwh_microcny = 700_000
    return made


def report(*sites: Site, nodes: tuple[Node, ...] = ()) -> CityReport:
    now_ms = start_ms("2026") + 24 * 3_600_000
    return CityReport("2026", now_ms, [], sites, nodes, Registry(), policy())


def rows(made: CityReport, section: str, site_id: str) -> list[tuple[str, str, str]]:
    return [(r.measure, r.value, r.unit) for r in made.rows if (r.section, r.what) == (section, site_id)]


@pytest.mark.parametrize(
    ("site_id", "jurisdiction", "pue_permille", "ceiling", "state"),
    [
        ("old", "CN-GD-GZ-TH", 1500, "1.500", "kept"),
        ("old", "CN-GD-GZ-TH", 1501, "1.500", "BROKEN"),
        ("new", "CN-GD-GZ", 1500, "1.250", "BROKEN"),
        ("new", "CN-GD-GZ", 1250, "1.250", "kept"),
        ("unknown-age", "CN-GD-GZ", 1300, "1.250", "BROKEN"),  # counts as new
        ("new", "CN-GD-SZ", 1300, "1.300", "kept"),
        ("new", "CN-HB", 1900, "-", "no ceiling"),
        ("new", "CN-GD-GZ", 0, "1.250", "BROKEN"),  # nobody knows its PUE
    ],
)
def test_the_narrowest_ceiling_for_its_age_is_the_one_that_a_site_has_to_keep(
    site_id: str, jurisdiction: str, pue_permille: int, ceiling: str, state: str
) -> None:
    centre = site(site_id, pue_permille, jurisdiction)
    found = {measure: value for measure, value, _ in rows(report(centre), "PUE", site_id)}
    assert (found["ceiling"], found["policy"]) == (ceiling, state)
    assert policy().keeps(centre) is (state != "BROKEN")


def test_a_retrofit_saves_what_the_better_pue_takes_off_the_power_of_the_it() -> None:
    """A megawatt of IT from 1.45 to 1.15: 0.3 MW for 8,760 hours."""
    assert rows(report(site("old", 1450)), "retrofit", "old") == [
        ("to PUE", "1.150", ""),
        ("would save", "2628000", "kWh a year"),
        ("would save", "1839600.000000", "CNY a year"),
        ("would save", "1314000", "kg CO2 a year"),
    ]
    assert rows(report(site("old", 1150)), "retrofit", "old") == []


def test_a_centre_of_500_petaflops_is_large_and_the_use_of_it_is_counted() -> None:
    def centre(devices: int) -> CityReport:
        node = Node(id="old/n1", site_id="old")
        node.accelerators.add(model="H100", count=devices)
        return report(site("old", 1400), nodes=(node,))

    [(_, each, _)] = [r for r in rows(centre(1), "compute", "old") if r[0] == "capacity now"]
    enough = -(-500 // float(each))
    assert rows(centre(int(enough)), "large centres", "old")
    assert not rows(centre(int(enough) - 1), "large centres", "old")
    use = ("use of today's capacity over the year so far", "0.0000", "%")
    assert use in rows(centre(1), "compute", "old")


def test_the_page_and_the_table_say_the_same_and_nothing_in_them_is_run() -> None:
    evil = site("<script>alert(1)</script>", 1400)
    made = report(evil, site("=HYPERLINK(1)", 1400), site("-2+cmd", 1400), site("old", 1450))
    page, table = made.html(), list(csv.reader(io.StringIO(made.csv())))
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert {row[1][:1] for row in table}.isdisjoint("=@+-")
    for row in made.rows:
        assert f"<td>{row.value}</td>" in page
    assert len(table) == 1 + len(made.rows)
    assert "http" not in page  # it needs nothing from elsewhere
