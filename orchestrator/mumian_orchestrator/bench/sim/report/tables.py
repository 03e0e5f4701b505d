"""Rows as a terminal table, CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Column, Table

from mumian_orchestrator.bench.sim.record import Record, machine
from mumian_orchestrator.bench.sim.report.figures import SHARES, TITLES
from mumian_orchestrator.bench.sim.report.summary import Row, Value

TITLE_OF_DECISION = "Decision, µs a task"
# What the docs have room for; a terminal shows some more, in several tables if need be.
_NARROW = (
    "inside_slo",
    "starts",
    "waiting_at_end",
    "wait_mean_s",
    "cpu_utilisation",
    "meter_kwh",
    "carbon_kg",
    "cny",
    "cny_per_core_hour",
    "gap_to_bound",
    "moves",
    "decision_us",
)


_TERMINAL = (*_NARROW, "core_fragments", "device_fragments", "idle_kwh", "pue", "fairness_jain")


def title(name: str) -> str:
    """Of a figure, for people."""
    return TITLES[name][0] if name in TITLES else TITLE_OF_DECISION


def heading_of(column: str) -> str:
    """Of a figure of a site or a tenant."""
    return TITLES[column][0] if column in TITLES else column.replace("_", " ").capitalize()


def told(name: str, value: Value | float | None) -> str:
    """A figure for people."""
    if value is None:
        return "-"
    number = value.mean if isinstance(value, Value) else value
    if name in SHARES:
        return f"{100 * number:.2f} %"
    if name in ("pue", "fairness_jain", "cny_per_core_hour"):
        return f"{number:.4f}"
    if abs(number) >= 100:
        return f"{number:,.0f}"
    # "g" would write less with a power of ten.
    return f"{number:.4g}" if not number or abs(number) >= 0.0001 else f"{number:.6f}"


def print_comparison(rows: Sequence[Row], console: Console) -> None:
    """A table for each scenario."""
    for scenario in dict.fromkeys(row.scenario for row in rows):
        chosen = [row for row in rows if row.scenario == scenario]
        heading: str | None = f"{scenario}, {chosen[0].told_seeds}"
        for widths in _parts(chosen, console.width):
            names = list(widths)
            columns = [Column(title(name), width=width) for name, width in widths.items()]
            table = Table(Column("policy", no_wrap=True), *columns, title=heading)
            for row in chosen:
                table.add_row(row.policy, *(told(name, row.values[name]) for name in names))
            console.print(table)
            heading = None


def _parts(rows: Sequence[Row], width: int) -> list[dict[str, int]]:
    """The figures and how wide each is, in as many tables as it takes to be no wider than the terminal."""
    border = 3
    first = max(len(row.policy) for row in rows) + border + 1
    parts: list[dict[str, int]] = []
    left = 0
    for name in _TERMINAL:
        cells = [told(name, row.values[name]) for row in rows]
        needed = max(map(len, [*title(name).split(), *cells]))
        if needed + border > left:
            parts.append({})
            left = width - first
        parts[-1][name] = needed
        left -= needed + border
    return parts


def print_run(run: Record, console: Console) -> None:
    """One run: its figures, its sites, its tenants."""
    table = Table(
        "figure", "value", "", title=f"{run.scenario}: {run.nodes} nodes, seed {run.seed}, {run.policy}"
    )
    for name, (heading, meaning) in TITLES.items():
        value = run.figures[name]
        table.add_row(heading, told(name, None if value is None else float(str(value))), meaning)
    console.print(table)
    for kind in ("sites", "tenants"):
        entries = run.figures[kind]
        assert isinstance(entries, Mapping)
        columns = list(next(iter(entries.values())))
        table = Table(Column(kind[:-1], no_wrap=True), *map(heading_of, columns))
        for name, entry in entries.items():
            table.add_row(name, *(told(column, entry[column]) for column in columns))
        console.print(table)
    clock = run.clock
    console.print(
        f"{clock.wall_s:.1f} s on the clock, {clock.decision_s:.1f} s of it deciding "
        f"({clock.decision_us_per_task:.0f} µs a task); {clock.tasks_per_s:.0f} tasks/s; "
        f"{clock.memory_mib} MiB"
    )
    console.print(machine())


def as_csv(records: Sequence[Record]) -> str:
    """One line for each run: what it was, its figures, and its time on the clock."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["scenario", "policy", "seed", "mode", "nodes", *TITLES, "decision_us", "wall_s", "machine"]
    )
    for run in records:
        figures = ["" if run.figures[name] is None else run.figures[name] for name in TITLES]
        clock = [run.clock.decision_us_per_task, run.clock.wall_s, machine()]
        writer.writerow([run.scenario, run.policy, run.seed, run.mode, run.nodes, *figures, *clock])
    return out.getvalue()


def as_json(records: Sequence[Record]) -> str:
    """Every run with its samples, and the machine."""
    return json.dumps({"machine": machine(), "runs": [run.as_json() for run in records]}, indent=1)


def as_markdown(rows: Sequence[Row]) -> str:
    """A table for each scenario, for the docs."""
    lines = []
    for scenario in dict.fromkeys(row.scenario for row in rows):
        chosen = [row for row in rows if row.scenario == scenario]
        lines += [f"### {scenario}", "", "| policy | " + " | ".join(map(title, _NARROW)) + " |"]
        lines.append("|---|" + "---:|" * len(_NARROW))
        for row in chosen:
            cells = " | ".join(told(name, row.values[name]) for name in _NARROW)
            lines.append(f"| {row.policy} | {cells} |")
        lines.append("")
    return "\n".join(lines)
