"""The best published costs, listed in a `best_known.csv` beside the instances."""

from __future__ import annotations

import csv
from pathlib import Path

from mumian_orchestrator.bench.gap.orlib import GapFileError


def best_known_of(folder: Path) -> dict[str, int]:
    """The best published cost by instance, from the `best_known.csv` of a folder of instances.

    Raises:
        GapFileError: the list is there and cannot be read.
    """
    table = folder / "best_known.csv"
    if not table.exists():
        return {}
    best_known = {}
    with table.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines)
        for row in rows:
            name, value = row.get("instance"), row.get("best_known_value")
            if not name or not value or not value.isdecimal():
                raise GapFileError(
                    f"{table}, line {rows.line_num}: instance {name!r} has best_known_value {value!r}; "
                    "give both columns, a name and a whole number"
                )
            best_known[name] = int(value)
    return best_known
