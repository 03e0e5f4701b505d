"""Where a scenario's figures come from: a figure without a source is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mumian_orchestrator.bench.sim.fields import Fields, ScenarioError

# What each kind of source has to say beside its text.
KINDS = {"rule": "address", "published": "address", "recorded": "", "assumed": "because"}
# They describe the run, not the world.
_NO_FIGURES = {"rent_counts", "name", "seed", "duration_h", "tick_s", "short", "sources", "based_on"}


@dataclass(frozen=True, slots=True)
class Source:
    """One source and the figures that are from it.

    Args:
        fields: patterns of dotted names, such as `sites.*.pue_permille`; entries of lists go by their id.
        kind: a public rule, a published figure, a recording, or an assumption.
        text: what the source says, or why it was assumed so.
        address: where it says so; empty for recordings and assumptions.
    """

    fields: tuple[str, ...]
    kind: str
    text: str
    address: str


def read_sources(top: Fields, raw: object) -> tuple[Source, ...]:
    """The sources of a scenario.

    Raises:
        ScenarioError: one is wrong, or a figure has none.
    """
    sources = top.items("sources", _source)
    for name in figures(raw):
        if source_of(name, sources) is None:
            raise ScenarioError(
                f"{name} has no source; name it under sources, if need be with kind: assumed and because: why"
            )
    return sources


def source_of(name: str, sources: tuple[Source, ...]) -> Source | None:
    """The first source that names a figure."""
    return next((s for s in sources if any(fnmatchcase(name, pattern) for pattern in s.fields)), None)


def figures(raw: object, path: str = "") -> Iterator[str]:
    """The dotted names of all numbers of the parsed file, lists of numbers as one."""
    if isinstance(raw, dict):
        for key, value in raw.items():
            if path or key not in _NO_FIGURES:
                yield from figures(value, f"{path}.{key}" if path else str(key))
    elif isinstance(raw, list):
        if any(isinstance(entry, int | float) for entry in raw):
            yield path
        for index, entry in enumerate(raw):
            if isinstance(entry, dict):
                own = entry.get("id") or entry.get("name") or index
                yield from figures(entry, f"{path}.{own}")
    elif isinstance(raw, int | float) and not isinstance(raw, bool):
        yield path


def _source(f: Fields) -> Source:
    fields, kind = f.texts("fields"), f.text("kind")
    f.known("kind", kind, KINDS)
    if not fields:
        raise ScenarioError(f"{f.at('fields')} must name at least one figure, such as sites.*.pue_permille")
    if kind == "assumed":
        return Source(fields, kind, f.text("because"), "")
    address = f.text("address") if KINDS[kind] else f.text("address", "")
    return Source(fields, kind, f.text("text"), address)
