"""One self-contained HTML page with plots, for somebody who decides and does not run commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from statistics import fmean

from mumian_orchestrator.bench.sim.record import Record, machine
from mumian_orchestrator.bench.sim.report.charts import bar_chart, line_chart
from mumian_orchestrator.bench.sim.report.figures import TITLES
from mumian_orchestrator.bench.sim.report.summary import COMPARED, Row, Value, rows
from mumian_orchestrator.bench.sim.report.tables import heading_of, title, told
from mumian_orchestrator.bench.sim.scenario import Scenario
from mumian_orchestrator.bench.sim.sources import Source

_SITES_SHOWN = 8
_CARDS = (
    "inside_slo",
    "cny",
    "meter_kwh",
    "carbon_kg",
    "pue",
    "waiting_at_end",
    "cpu_utilisation",
    "gap_to_bound",
)
_BARS = (
    ("inside_slo", "Requests inside their SLO", "more is better", 100.0, ".2f"),
    ("cny_per_core_hour", "Cost per core-hour, CNY", "less is better", 1.0, ".4f"),
    ("meter_kwh", "Energy at the meter, kWh", "less is better, for the same work", 1.0, ",.4g"),
    ("carbon_kg", "CO2, kg", "less is better, for the same work", 1.0, ",.4g"),
    ("waiting_at_end", "Tasks without a place at the end", "less is better", 1.0, ",.1f"),
    ("gap_to_bound", "Gap to the proven least cost, %", "less is better", 100.0, ".2f"),
)
# Of each tenant under each policy.
_FAIR = ("inside_slo", "placed_share", "wait_mean_s")
# Lower is better but for these; and a best one is not marked where it says nothing.
_HIGHER_IS_BETTER = {"inside_slo", "inside_soft_slo", "starts", "fairness_jain"}
_NO_BEST = {"cpu_utilisation", "accelerator_utilisation", "moves"}


def page(scenarios: Mapping[str, Scenario], records: Sequence[Record]) -> str:
    """The page. Curves are of the first seed; tables and bars are means over all seeds."""
    summary = rows(records)
    policies = list(dict.fromkeys(record.policy for record in records))
    seeds = sorted({record.seed for record in records})
    names = list(dict.fromkeys(record.scenario for record in records))
    parts = [f"<h1>{escape(', '.join(names))}</h1>", _about(records, policies, seeds)]
    for name in names:
        chosen = [record for record in records if record.scenario == name]
        of_it = [row for row in summary if row.scenario == name]
        if len(names) > 1:
            parts.append(f"<h2 class='scenario'>{escape(name)}</h2><p>{_span(chosen[0])}.</p>")
        parts.append(f"<p>{escape(scenarios[name].about)}</p>")
        parts.append(_cards(of_it[0]))
        if len(of_it) > 1:
            parts.append(_comparison(of_it))
            parts.append(_tenants_by_policy(chosen))
        parts.append(_curves(chosen))
        parts.append(_detail(next(r for r in chosen if r.policy == of_it[0].policy)))
        if name in scenarios:
            parts.append(_sources(scenarios[name].sources))
    parts.append(_glossary())
    style = files(__package__).joinpath("page.css").read_text()
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Mumian twin: {escape(', '.join(names))}</title><style>{style}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _about(records: Sequence[Record], policies: Sequence[str], seeds: Sequence[int]) -> str:
    first, names = records[0], {record.scenario for record in records}
    span = _span(first) if len(names) == 1 else f"{len(names)} scenarios"
    seed_text = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds ({seeds[0]} to {seeds[-1]})"
    return (
        f"<p class='lead'>Simulated with Mumian's real placement engine: {span}, {seed_text}, "
        f"{len(policies)} {'policy' if len(policies) == 1 else 'policies'}.</p>"
        f"<p class='machine'>Mode: {escape(first.mode)}. Run on: {escape(machine())}. The same seed gives "
        "the same figures on any machine; only decision times differ.</p>"
    )


def _span(record: Record) -> str:
    return f"{record.duration_s / 3600:g} hours of virtual time on {record.nodes:,} machines"


def _cards(row: Row) -> str:
    cards = "".join(
        f"<div class='card'><div class='value'>{told(name, row.values[name])}</div>"
        f"<div class='name'>{escape(title(name))}</div></div>"
        for name in _CARDS
        if row.values[name] is not None
    )
    return f"<h3>Policy {escape(row.policy)} in short</h3><div class='cards'>{cards}</div>"


def _comparison(summary: Sequence[Row]) -> str:
    shown = [n for n in COMPARED if any(_says_something(n, row.values[n]) for row in summary)]
    head = "".join(f"<th title='{escape(_meaning(n))}'>{escape(title(n))}</th>" for n in shown)
    best = {name: _best(name, summary) for name in shown}
    body = "".join(
        f"<tr><th>{escape(row.policy)}</th>"
        + "".join(f"<td{_mark(row.policy in best[n])}>{told(n, row.values[n])}</td>" for n in shown)
        + "</tr>"
        for row in summary
    )
    bars = "".join(
        f"<figure><figcaption>{escape(heading)} <small>({escape(note)})</small></figcaption>"
        + bar_chart(
            {row.policy: (factor * v.mean, factor * v.spread) for row in summary if (v := row.values[name])},
            format_,
            highlight=summary[0].policy,
        )
        + "</figure>"
        for name, heading, note, factor, format_ in _BARS
        if any(v is not None and v.mean > 0 for row in summary for v in [row.values[name]])
    )
    return (
        f"<h3>Policies side by side</h3>{_in_words(summary)}<p>Means over the seeds, with their standard "
        "deviation as ± and as lines in bars; the best of each column is marked. Policies that leave more "
        "tasks waiting also use less energy and money: read cost per "
        f"core-hour.</p><div class='wide'><table><thead><tr><th>Policy</th>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
        f"<div class='figures'>{bars}</div>"
    )


def _says_something(name: str, value: Value | None) -> bool:
    """Idle energy of nothing is a figure that the scenario does not have."""
    return value is not None and (name != "idle_kwh" or value.mean > 0)


def _tenants_by_policy(chosen: Sequence[Record]) -> str:
    """How each tenant fares under each policy, so that one that pays for the others is seen."""
    policies = list(dict.fromkeys(record.policy for record in chosen))
    names = sorted({name for record in chosen for name in _tenants(record)})
    body = ""
    for policy in policies:
        of_it = [_tenants(record) for record in chosen if record.policy == policy]
        cells = "".join(
            f"<td>{told(column, _mean([of_run[name][column] for of_run in of_it if name in of_run]))}</td>"
            for name in names
            for column in _FAIR
        )
        body += f"<tr><th>{escape(policy)}</th>{cells}</tr>"
    head = "".join(f"<th colspan='{len(_FAIR)}'>{escape(name)}</th>" for name in names)
    columns = "".join(f"<th>{escape(heading_of(column))}</th>" for _ in names for column in _FAIR)
    return (
        "<h3>Tenants side by side</h3><p>Means over the seeds. Placed share: of the tasks that came, those "
        "that have or had a place.</p><div class='wide'><table class='tenants'><thead>"
        f"<tr><th></th>{head}</tr><tr><th>Policy</th>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _tenants(record: Record) -> Mapping[str, Mapping[str, float | None]]:
    found = record.figures["tenants"]
    assert isinstance(found, Mapping)
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return fmean(given) if given else None


def _mark(is_best: bool) -> str:
    return " class='best'" if is_best else ""


def _in_words(summary: Sequence[Row]) -> str:
    """The first policy against each of the others."""
    ours, *others = summary
    lines = []
    for other in others:
        parts = []
        for name, less, more in (
            ("cny_per_core_hour", "costs {} less", "costs {} more"),
            ("meter_kwh", "takes {} less energy", "takes {} more energy"),
        ):
            mine, theirs = ours.values[name], other.values[name]
            if mine is not None and theirs is not None and theirs.mean:
                change = mine.mean / theirs.mean - 1
                share = f"{100 * abs(change):.1f} %"
                parts.append((less if change <= 0 else more).format(share) if abs(change) > 5e-4 else "")
        for name, what in (("inside_slo", "SLOs"), ("inside_soft_slo", "soft SLOs")):
            mine, theirs = ours.values[name], other.values[name]
            if mine is not None and theirs is not None and abs(mine.mean - theirs.mean) > 5e-4:
                points = 100 * (mine.mean - theirs.mean)
                more_or_fewer = "more" if points > 0 else "fewer"
                parts.append(f"keeps {abs(points):.1f} points {more_or_fewer} of the {what}")
        told_parts = [part for part in parts if part]
        words = ", ".join(told_parts) if told_parts else "does the same"
        lines.append(f"<li>Against {escape(other.policy)}: {words}.</li>")
    return f"<p><b>{escape(ours.policy)}</b></p><ul>{''.join(lines)}</ul>"


def _best(name: str, summary: Sequence[Row]) -> set[str]:
    found = [(v.mean, row.policy) for row in summary if (v := row.values[name]) is not None]
    if name in _NO_BEST or not found or len({told(name, mean) for mean, _ in found}) == 1:
        return set()
    target = max(found)[0] if name in _HIGHER_IS_BETTER else min(found)[0]
    best = {policy for mean, policy in found if told(name, mean) == told(name, target)}
    # Where most are alike, the mark would say nothing.
    return best if 2 * len(best) <= len(found) else set()


def _curves(records: Sequence[Record]) -> str:
    first: dict[str, Record] = {}
    for record in records:
        first.setdefault(record.policy, record)
    hours = {name: [s.at_s / 3600 for s in record.samples] for name, record in first.items()}
    plots = [
        (
            "Requests inside their SLO",
            line_chart(
                {
                    n: list(zip(hours[n], (s.inside_slo for s in r.samples), strict=True))
                    for n, r in first.items()
                },
                "% of task-seconds",
                is_share=True,
            ),
        ),
        (
            "Power at the meter",
            line_chart(
                {
                    n: [(h, sum(s.meter_kw.values())) for h, s in zip(hours[n], r.samples, strict=True)]
                    for n, r in first.items()
                },
                "kW",
            ),
        ),
        (
            "Cores in use",
            line_chart(
                {
                    n: list(zip(hours[n], (s.core_share for s in r.samples), strict=True))
                    for n, r in first.items()
                },
                "% of all cores",
                is_share=True,
            ),
        ),
        (
            "Tasks that wait for a place",
            line_chart(
                {
                    n: [(h, float(s.waiting)) for h, s in zip(hours[n], r.samples, strict=True)]
                    for n, r in first.items()
                },
                "tasks",
            ),
        ),
    ]
    if any(record.readings for record in first.values()):
        plots.append(
            (
                "Cost above the proven least",
                line_chart(
                    {n: [(x.at_s / 3600, x.gap) for x in r.readings] for n, r in first.items()},
                    "% above the bound",
                    is_share=True,
                ),
            )
        )
    if len(first) == 1:
        plots.append(("Where the power goes", line_chart(_by_site(next(iter(first.values()))), "kW")))
    shown = "".join(f"<figure><figcaption>{escape(name)}</figcaption>{svg}</figure>" for name, svg in plots)
    seed = next(iter(first.values())).seed
    return f"<h3>Over the hours</h3><p>One run each, seed {seed}.</p><div class='figures'>{shown}</div>"


def _by_site(record: Record) -> dict[str, list[tuple[float, float | None]]]:
    """The sites that took the most, and all others as one curve."""
    totals = {site: sum(s.meter_kw[site] for s in record.samples) for site in record.samples[0].meter_kw}
    ranked = sorted(totals, key=lambda site: -totals[site])
    shown, rest = ranked[:_SITES_SHOWN], ranked[_SITES_SHOWN:]
    curves: dict[str, list[tuple[float, float | None]]] = {
        site: [(s.at_s / 3600, s.meter_kw[site]) for s in record.samples]
        for site in shown
        if totals[site] > 0
    }
    if any(totals[site] > 0 for site in rest):
        name = f"{len(rest)} other sites"
        curves[name] = [(s.at_s / 3600, sum(s.meter_kw[site] for site in rest)) for s in record.samples]
    return curves


def _detail(record: Record) -> str:
    parts = []
    for kind, heading in (("sites", "Sites"), ("tenants", "Tenants")):
        entries = record.figures[kind]
        assert isinstance(entries, Mapping)
        columns = list(next(iter(entries.values())))
        head = "".join(f"<th>{escape(heading_of(c))}</th>" for c in columns)
        body = "".join(
            f"<tr><th>{escape(name)}</th>"
            + "".join(f"<td>{told(column, entry[column])}</td>" for column in columns)
            + "</tr>"
            for name, entry in entries.items()
        )
        parts.append(
            f"<h3>{heading}</h3><p>Policy {escape(record.policy)}, seed {record.seed}.</p>"
            f"<div class='wide'><table><thead><tr><th>{heading[:-1]}</th>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table></div>"
        )
    return "".join(parts)


def _sources(sources: Sequence[Source]) -> str:
    body = "".join(
        f"<tr><td class='kind {escape(s.kind)}'>{escape(s.kind)}</td><td>{escape(', '.join(s.fields))}</td>"
        f"<td>{escape(s.text)}{_link(s.address)}</td></tr>"
        for s in sources
    )
    return (
        "<h3>Where the figures come from</h3><p>The first entry that names a figure counts. What is assumed "
        "compares policies; it does not describe the real place.</p><div class='wide'><table class='sources'>"
        f"<thead><tr><th>Kind</th><th>Figures</th><th>Source</th></tr></thead><tbody>{body}</tbody></table></div>"
    )


def _link(address: str) -> str:
    if not address:
        return ""
    shown = escape(address)
    return f" <a href='{shown}'>{shown}</a>" if address.startswith(("http://", "https://")) else f" {shown}"


def _glossary() -> str:
    body = "".join(
        f"<dt>{escape(heading)}</dt><dd>{escape(meaning)}</dd>" for heading, meaning in TITLES.values()
    )
    return f"<h3>What the figures mean</h3><dl>{body}</dl>"


def _meaning(name: str) -> str:
    return TITLES[name][1] if name in TITLES else "time that the policy took, on this machine"
