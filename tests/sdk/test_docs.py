"""The page on job specs has a row for every key that a job spec may have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mumian.spec import loader, task_run

PAGE = Path(__file__).parents[2] / "docs/job-spec.md"
NESTED: Mapping[str, Mapping[str, object]] = {
    "resources": loader._RESOURCES,
    "resources.accelerators": loader._ACCELERATORS,
    "latency": loader._LATENCY,
    "compute": loader._COMPUTE,
    "on_disconnect": loader._ON_DISCONNECT,
    "health": task_run._HEALTH,
    "update": loader._UPDATE,
}


def keys() -> Iterator[str]:
    """Every key that the loader reads, with those around it."""
    yield from [*loader._JOB, *loader._GROUP]
    for outer, readers in NESTED.items():
        yield from (f"{outer}.{key}" for key in readers)


def test_every_key_has_a_row() -> None:
    rows = set(re.findall(r"^\| `([\w.]+)` \|", PAGE.read_text(), re.MULTILINE))
    missing = [key for key in keys() if not any(row == key or row.startswith(f"{key}.") for row in rows)]
    assert missing == [], f"add rows to {PAGE.name}"
