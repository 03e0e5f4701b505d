"""The one look of all tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from mumian.cli.words import STYLES


def table(*columns: str, right: Sequence[str] = (), wrapped: Sequence[str] = ()) -> Table:
    """A table with a rule under its header; the named columns are figures, or may wrap."""
    made = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0)
    )
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column not in wrapped,
            overflow="fold" if column in wrapped else "ellipsis",
        )
    return made


def state(word: str) -> Text:
    """A state in its colour."""
    return Text(word, style=STYLES.get(word, ""))


def bar(used: int, capacity: int, width: int = 10) -> Text:
    """A gauge of used over capacity."""
    if not capacity:
        return Text("-", style="dim")
    share = min(1.0, used / capacity)
    full = round(share * width)
    style = "red" if share > 0.9 else "yellow" if share > 0.7 else "green"
    return Text.assemble(("█" * full, style), ("░" * (width - full), "dim"))
