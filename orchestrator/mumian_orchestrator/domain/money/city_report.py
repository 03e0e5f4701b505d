"""The city's report on a year: compute, use, PUE against policy, large centres, vouchers; as CSV and HTML."""

from __future__ import annotations

import csv
import html
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mumian.api.v1.fleet_pb2 import Node, Site
from mumian.storage.v1 import ledger_pb2
from mumian.storage.v1.ledger_pb2 import LedgerEntry

from mumian_orchestrator.domain.money.accounts import lines_of
from mumian_orchestrator.domain.money.compute_table import TFLOPS_FP16
from mumian_orchestrator.domain.money.pue_policy import PuePolicy, retrofit_of
from mumian_orchestrator.domain.money.registry import Registry
from mumian_orchestrator.domain.periods import end_ms, start_ms

LARGE_CENTRE_PFLOPS = 500
_MS_PER_HOUR = 3_600_000
_UNKNOWN, _ALL_SITES = "(unknown)", "all"
_NUMBER = re.compile(r"-[0-9.]*")  # or the dash for none


class Row(NamedTuple):
    """One figure of the report. A spreadsheet can sort and sum them."""

    section: str
    what: str
    measure: str
    value: str
    unit: str


class CityReport:
    """Worked out from the ledger's entries of the year, and from the fleet as it is now."""

    def __init__(
        self,
        year: str,
        now_ms: int,
        entries: Sequence[LedgerEntry],
        sites: Sequence[Site],
        nodes: Sequence[Node],
        registry: Registry,
        pue: PuePolicy,
    ) -> None:
        self.year, self._sites, self._nodes, self._pue = year, sites, nodes, pue
        self._tflops = {**TFLOPS_FP16, **registry.tflops}
        self._hours = max(0, min(now_ms, end_ms(year)) - start_ms(year)) / _MS_PER_HOUR
        self._entries = entries
        self.rows = [*self._money(), *self._compute(), *self._centres(), *self._vouchers()]

    def _money(self) -> list[Row]:
        total: Counter[str] = Counter()
        for line in lines_of(self._entries):
            for part in ("rent", "energy", "carbon", "egress", "forgone", "voucher", "tenant"):
                total[part] += getattr(line, f"{part}_microcny")
        words = {
            "rent": "rent",
            "energy": "energy",
            "carbon": "carbon",
            "egress": "egress",
            "forgone": "borne by operators",
            "voucher": "paid by vouchers",
            "tenant": "paid by tenants",
        }
        return [Row("money", "all", words[part], _cny(total[part]), "CNY") for part in words]

    def _compute(self) -> list[Row]:
        device_ms: Counter[str] = Counter()  # by model
        tflops_ms: Counter[str] = Counter()  # by site, as what follows
        core_ms: Counter[str] = Counter()
        it_uj: Counter[str] = Counter()
        for entry in self._entries:
            if entry.kind == ledger_pb2.LEDGER_ENTRY_KIND_POST:
                about, model = entry.settlement, entry.settlement.accelerator_model
                device_ms[model] += about.receipt.accelerator_ms
                tflops_ms[about.site_id] += about.receipt.accelerator_ms * self._tflops.get(model, 0)
                core_ms[about.site_id] += about.receipt.core_ms
                it_uj[about.site_id] += about.receipt.it_energy_uj
        capacity = self._capacity_tflops()
        sites = sorted({*core_ms, *capacity})
        for amounts in (tflops_ms, core_ms, it_uj, capacity):
            amounts[_ALL_SITES] = amounts.total()
        rows = []
        # The whole has a section of its own, so that a sum over the sites counts nothing twice.
        for section, site in (("compute of all sites", _ALL_SITES), *(("compute", site) for site in sites)):
            delivered, possible = tflops_ms[site] / 1000, capacity[site] / 1000 * self._hours * _MS_PER_HOUR
            rows += [
                Row(section, site, "delivered", _fixed(delivered / _MS_PER_HOUR), "PFLOPS-h"),
                Row(section, site, "cores", _fixed(core_ms[site] / _MS_PER_HOUR), "core-h"),
                Row(section, site, "IT energy", _fixed(it_uj[site] / 3.6e12), "kWh"),
                Row(section, site, "capacity now", _fixed(capacity[site] / 1000), "PFLOPS"),
            ]
            if possible:
                share = f"{100 * delivered / possible:.4f}"
                rows.append(Row(section, site, "use of today's capacity over the year so far", share, "%"))
        unknown = sorted(model for model in device_ms if model and model not in self._tflops)
        rows += [Row("compute", model, "not in the table of TFLOPS", "0", "TFLOPS") for model in unknown]
        return rows

    def _capacity_tflops(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for node in self._nodes:
            for accelerator in node.accelerators:
                found[node.site_id] += accelerator.count * self._tflops.get(accelerator.model, 0)
        return found

    def _centres(self) -> list[Row]:
        capacity = self._capacity_tflops()
        rows = []
        for site in self._sites:
            ceiling = self._pue.ceiling_permille(site)
            retrofit = retrofit_of(site, self._pue)
            state = "no ceiling" if ceiling is None else "kept" if self._pue.keeps(site) else "BROKEN"
            if capacity[site.id] >= 1000 * LARGE_CENTRE_PFLOPS:
                large = _fixed(capacity[site.id] / 1000)
                rows.append(Row("large centres", site.id, "capacity now", large, "PFLOPS"))
            rows += [
                Row("PUE", site.id, "average", _ratio(site.pue.average_permille), ""),
                Row("PUE", site.id, "ceiling", _ratio(ceiling or 0), ""),
                Row("PUE", site.id, "policy", state, ""),
            ]
            if retrofit.pue_permille > retrofit.target_permille:
                rows += [
                    Row("retrofit", site.id, "to PUE", _ratio(retrofit.target_permille), ""),
                    Row("retrofit", site.id, "would save", str(retrofit.saved_kwh_per_year), "kWh a year"),
                    Row(
                        "retrofit",
                        site.id,
                        "would save",
                        _cny(retrofit.saved_microcny_per_year),
                        "CNY a year",
                    ),
                    Row(
                        "retrofit",
                        site.id,
                        "would save",
                        str(retrofit.saved_kg_co2_per_year),
                        "kg CO2 a year",
                    ),
                ]
        return rows

    def _vouchers(self) -> list[Row]:
        by: dict[str, Counter[str]] = defaultdict(Counter)
        for line, entry in zip(lines_of(self._entries), self._settled(), strict=True):
            about = entry.settlement
            if about.voucher_policy_id:
                by["policy"][about.voucher_policy_id] += line.voucher_microcny
                by["sector"][about.sector or _UNKNOWN] += line.voucher_microcny
                by["district"][about.district or _UNKNOWN] += line.voucher_microcny
        return [
            Row(f"vouchers by {group}", name, "paid", _cny(microcny), "CNY")
            for group, amounts in by.items()
            for name, microcny in sorted(amounts.items())
        ]

    def _settled(self) -> list[LedgerEntry]:
        return [entry for entry in self._entries if entry.HasField("settlement")]

    def csv(self) -> str:
        """With a header line."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows([_harmless(cell) for cell in row] for row in self.rows)
        return out.getvalue()

    def html(self) -> str:
        """One page that needs nothing from elsewhere."""
        parts = [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Compute report {self.year}</title>',
            "<style>body{font:15px/1.5 sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}"
            "table{border-collapse:collapse}td,th{padding:.25rem .8rem;text-align:right;"
            "border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}th{font-weight:600;color:#555}"
            "td:first-child,th:first-child{text-align:left}h2:first-letter{text-transform:uppercase}</style>",
            f"<h1>Compute report {self.year}</h1><p>Amounts are those of the ledger. Capacity, PUE and "
            "retrofit are those of today's fleet; compute is counted at dense FP16.</p>",
        ]
        for section in dict.fromkeys(row.section for row in self.rows):
            parts += [f"<h2>{html.escape(section)}</h2>", *_table(self._of(section))]
        return "\n".join(parts)

    def _of(self, section: str) -> list[Row]:
        return [row for row in self.rows if row.section == section]


def _table(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each thing, a column for each measure."""
    columns = list(dict.fromkeys((row.measure, row.unit) for row in rows))
    values = {(row.what, row.measure, row.unit): row.value for row in rows}
    yield "<table><tr><th></th>" + "".join(
        f"<th>{html.escape(measure)}{f'<br>{html.escape(unit)}' if unit else ''}</th>"
        for measure, unit in columns
    )
    for what in dict.fromkeys(row.what for row in rows):
        cells = (values.get((what, *column), "") for column in columns)
        yield f"<tr><td>{html.escape(what)}</td>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    yield "</table>"


def _harmless(cell: str) -> str:
    """A spreadsheet takes what begins so for a formula."""
    is_formula = cell[:1] in ("=", "@", "+", "-", "\t", "\r") and _NUMBER.fullmatch(cell) is None
    return f"'{cell}" if is_formula else cell


def _cny(microcny: int) -> str:
    sign = "-" if microcny < 0 else ""
    return f"{sign}{abs(microcny) // 10**6}.{abs(microcny) % 10**6:06d}"


def _fixed(value: float) -> str:
    return f"{value:.6f}"


def _ratio(permille: int) -> str:
    return f"{permille / 1000:.3f}" if permille else "-"
