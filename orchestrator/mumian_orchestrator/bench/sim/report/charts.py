"""Plots as inline SVG: curves over the hours, and bars. No scripts, no fonts, nothing from the network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float | None]]

# Okabe and Ito's colours, which people who see colours differently can tell apart; then the same, dashed.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c8c")
_DASHES = ("", "6 3", "2 3")
_WIDTH, _HEIGHT = 680, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 12, 40


def line_chart(series: Mapping[str, Points], unit: str, *, is_share: bool = False) -> str:
    """Curves over hours; a point without a value breaks its curve.

    Args:
        is_share: values are shares: the axis is in percent.
    """
    factor = 100 if is_share else 1
    values = [y * factor for points in series.values() for _, y in points if y is not None]
    if not any(values):
        return "<p class='none'>Nothing of the kind happened.</p>"
    low = min(values) if is_share and min(values) > 60 else 0.0
    ticks = _ticks(low, max(*values, low + 1e-9))
    low, high = ticks[0], ticks[-1]
    hours = max(x for points in series.values() for x, _ in points) or 1.0
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x / hours * width, _TOP + (high - y) / (high - low) * height

    parts = [_open(_HEIGHT)]
    for tick in ticks:
        _, y = at(0, tick)
        parts.append(f"<line class='grid' x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(_text(_LEFT - 6, y + 4, _short(tick), "end"))
    for hour in _ticks(0, hours, 8):
        if hour <= hours:
            x, _ = at(hour, low)
            parts.append(_text(x, _HEIGHT - _BOTTOM + 16, f"{hour:g}", "middle"))
    parts.append(_text(_LEFT + width / 2, _HEIGHT - 6, "hours since the start", "middle"))
    parts.append(
        f"<text class='unit' x='14' y='{_TOP + height / 2}' text-anchor='middle' "
        f"transform='rotate(-90 14 {_TOP + height / 2})'>{escape(unit)}</text>"
    )
    # The first curve is drawn last, above the others.
    for number, (name, points) in reversed(list(enumerate(series.items()))):
        for run in _runs(points):
            path = " ".join(
                f"{'M' if i == 0 else 'L'}{px:.1f} {py:.1f}"
                for i, (px, py) in enumerate(at(x, y * factor) for x, y in run)
            )
            parts.append(f"<path d='{path}' {_stroke(number)}><title>{escape(name)}</title></path>")
    parts.append("</svg>")
    return "".join(parts) + _legend(series)


def bar_chart(rows: Mapping[str, tuple[float, float]], format_: str, highlight: str = "") -> str:
    """Horizontal bars with their spread: a value and its standard deviation by name."""
    high = max((value + spread for value, spread in rows.values()), default=0.0) or 1.0
    label_width, value_width, row_height = 150, 130, 24
    width = _WIDTH - label_width - value_width
    parts = [_open(row_height * len(rows) + 6)]
    for number, (name, (value, spread)) in enumerate(rows.items()):
        y, bar = number * row_height + 4, value / high * width
        told = _told(value, format_) + (f" ± {_told(spread, format_)}" if spread > 0 else "")
        kind = "bar ours" if name == highlight else "bar"
        parts.append(_text(label_width - 8, y + 13, name, "end"))
        parts.append(
            f"<rect class='{kind}' x='{label_width}' y='{y}' width='{bar:.1f}' height='16' rx='2'>"
            f"<title>{escape(name)}: {told}</title></rect>"
        )
        if spread > 0:
            begin, end = (label_width + max(0.0, v) / high * width for v in (value - spread, value + spread))
            parts.append(f"<line class='spread' x1='{begin:.1f}' x2='{end:.1f}' y1='{y + 8}' y2='{y + 8}'/>")
        parts.append(_text(label_width + (value + spread) / high * width + 6, y + 13, told, "start"))
    parts.append("</svg>")
    return "".join(parts)


def _told(value: float, format_: str) -> str:
    """A large number as a whole, which "g" would write with a power of ten."""
    return f"{value:,.0f}" if format_.endswith("g") and abs(value) >= 1000 else format(value, format_)


def _open(height: float) -> str:
    return f"<svg viewBox='0 0 {_WIDTH} {height:g}' role='img' xmlns='http://www.w3.org/2000/svg'>"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{escape(text)}</text>"


def _stroke(number: int) -> str:
    colour = _COLOURS[number % len(_COLOURS)]
    dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
    return f"class='curve' stroke='{colour}'" + (f" stroke-dasharray='{dash}'" if dash else "")


def _legend(names: Mapping[str, object]) -> str:
    if len(names) < 2:
        return ""
    entries = "".join(
        f"<span><svg viewBox='0 0 24 8' class='key'><path d='M0 4 L24 4' {_stroke(number)}/></svg>"
        f"{escape(name)}</span>"
        for number, name in enumerate(names)
    )
    return f"<div class='legend'>{entries}</div>"


def _runs(points: Points) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 10 or (abs(value) >= size and value % size == 0):
            return f"{value / size:g}{letter}"
    return f"{value:g}"
