"""Public data sets as part of a scenario: `dataset` names the files, and is replaced by what is in them."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mumian_orchestrator.bench.openb.trace import TraceFileError, read_nodes
from mumian_orchestrator.bench.sim.fields import Fields, ScenarioError

_DAY_S = 86_400
_CELL_DEGREES = 0.002  # about 200 m


def expanded(raw: dict[str, object], folder: Path) -> dict[str, object]:
    """The scenario's mapping with the data set's zones, sites and jobs in it.

    Raises:
        ScenarioError: a file cannot be read, or a field is wrong.
    """
    if "dataset" not in raw:
        return raw
    kept = dict(raw)
    fields = Fields(kept.pop("dataset"), "dataset")
    name = fields.text("format")
    fields.known("format", name, _FORMATS)
    try:
        added = _FORMATS[name](fields, folder)
    except (OSError, ValueError, KeyError, TraceFileError) as error:
        raise ScenarioError(
            f"dataset ({name}) cannot be read: {error!r}; give the files as published"
        ) from error
    fields.end()
    for field in added:
        if field in kept:
            raise ScenarioError(f"{field} and dataset are both given; leave {field} out")
    return {**kept, **added}


def _openb(f: Fields, folder: Path) -> dict[str, object]:
    """Alibaba's GPU trace: all machines at one site, and the tasks that ran in a window of days.

    A task that ran already at the start arrives then. `nodes_every` keeps every so-manieth machine.
    """
    nodes_path, tasks_path = folder / f.text("nodes"), folder / f.text("tasks")
    from_s, days = f.whole("from_day") * _DAY_S, f.whole("days", least=1)
    every, prices = f.whole("nodes_every", 1, least=1), f.take("accelerators")
    site = _template(f)
    machines = Counter(
        (node.cpu_milli, node.memory_mib, node.gpus, node.model) for node in read_nodes(nodes_path)[::every]
    )
    site["nodes"] = [
        {
            "count": count,
            "cores": cpu_milli // 1000,
            "memory_gib": memory_mib // 1024,
            "core_active_power_mw": site["core_active_power_mw"],
            **({"accelerator_model": model, "accelerator_count": gpus, **prices[model]} if gpus else {}),
        }
        for (cpu_milli, memory_mib, gpus, model), count in sorted(machines.items())
    ]
    del site["core_active_power_mw"]
    times: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    with tasks_path.open(newline="") as file:
        for row in csv.DictReader(file):
            begin_s, end_s = float(row["creation_time"]), float(row["deletion_time"])
            if begin_s < from_s + days * _DAY_S and end_s > from_s:
                at_s = max(begin_s, from_s) - from_s
                kind = tuple(
                    row[c] for c in ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec", "qos")
                )
                times[kind].append((at_s, max(1.0, end_s - from_s - at_s)))
    jobs = []
    for number, (kind, found) in enumerate(sorted(times.items())):
        cpu_milli, memory_mib, gpus, gpu_milli, models, qos = kind
        jobs.append(
            {
                "name": f"openb-{number}",
                "tenant": qos,
                "priority": 40 if qos == "BE" else 60,
                "cpu_milli": int(cpu_milli),
                "memory_mib": int(memory_mib),
                "accelerator_milli": int(gpus) * int(gpu_milli),
                "accelerator_models": [model for model in models.split("|") if model],
                "arrivals": {"at_s": [at for at, _ in found], "run_s": [run for _, run in found]},
            }
        )
    zones = [{"id": "users", "latitude": site["latitude"], "longitude": site["longitude"]}]
    return {"zones": zones, "sites": [site], "jobs": jobs}


def _eua(f: Fields, folder: Path) -> dict[str, object]:
    """The EUA data set: each base station a site, and users thrown together into cells of about 200 m.

    `more_sites` come beside the stations, such as a cloud further away.
    """
    sites_path, users_path, template = folder / f.text("sites"), folder / f.text("users"), _template(f)
    more_sites = f.take("more_sites", [])
    with sites_path.open(newline="") as file:
        sites = [
            {
                **template,
                "id": f"bs-{row['SITE_ID']}",
                "latitude": float(row["LATITUDE"]),
                "longitude": float(row["LONGITUDE"]),
            }
            for row in csv.DictReader(file)
        ]
    cells: Counter[tuple[int, int]] = Counter()
    with users_path.open(newline="") as file:
        for row in csv.DictReader(file):
            place = (float(row["Latitude"]), float(row["Longitude"]))
            cells[round(place[0] / _CELL_DEGREES), round(place[1] / _CELL_DEGREES)] += 1
    zones = [
        {
            "id": f"cell-{number}",
            "latitude": round(south * _CELL_DEGREES, 4),
            "longitude": round(east * _CELL_DEGREES, 4),
            "users": users,
        }
        for number, ((south, east), users) in enumerate(sorted(cells.items()))
    ]
    return {"zones": zones, "sites": [*sites, *more_sites]}


def _template(f: Fields) -> dict[str, Any]:
    """What every site of the data set is like, beside what the files say."""
    site = f.take("site")
    if not isinstance(site, dict):
        raise ScenarioError(
            f"{f.at('site')} ({site!r}) must be a mapping: what the files do not say of a site"
        )
    return dict(site)


_FORMATS: Mapping[str, Callable[[Fields, Path], dict[str, object]]] = {"openb": _openb, "eua": _eua}
