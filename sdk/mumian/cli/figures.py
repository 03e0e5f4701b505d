"""Figures for people: the API's integers in the units that stand in the tables' headers."""

from __future__ import annotations

import time
from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from mumian.api.v1.explanation_pb2 import CostBreakdown

UNKNOWN = "-"


def ms(us: int) -> str:
    """Microseconds as milliseconds, for a column."""
    return f"{us / 1000:.1f}" if us < 1_000_000 else f"{us / 1000:.0f}"


def short_ms(us: int) -> str:
    """Microseconds as milliseconds, for a sentence."""
    return f"{us / 1000:.3f}".rstrip("0").rstrip(".")


def cny(microcny: int) -> str:
    """Micro-CNY as CNY."""
    return f"{microcny / 1e6:.3f}"


def date(when: Timestamp) -> str:
    """To the minute; "-" where there is none."""
    return when.ToDatetime().strftime("%Y-%m-%d %H:%M UTC") if when.seconds else UNKNOWN


# The parts of a cost that few tasks have, by the words of a table's header.
_COST_TERMS = {
    "breach": "latency_microcny_per_hour",
    "egress": "egress_microcny_per_hour",
    "move": "migration_microcny_per_hour",
    "stranded": "fragmentation_microcny_per_hour",
}


def cost_terms(costs: Iterable[CostBreakdown]) -> dict[str, str]:
    """The fields of those parts that any of the costs has, by word."""
    shown = list(costs)
    return {word: field for word, field in _COST_TERMS.items() if any(getattr(c, field) for c in shown)}


def pue(permille: int) -> str:
    """A PUE in permille as a ratio."""
    return f"{permille / 1000:.2f}" if permille else UNKNOWN


def cores(milli: int) -> str:
    """Thousandths (of a core, of a device) as a number without needless zeros."""
    return f"{milli / 1000:.3f}".rstrip("0").rstrip(".")


def gib(mib: int) -> str:
    """MiB as GiB."""
    return f"{mib / 1024:.1f}"


def watts(mw: int) -> str:
    """Milliwatt as watt; 0 means unknown."""
    return f"{mw / 1000:.1f}" if mw else UNKNOWN


def watt_hours(uj: int) -> str:
    """Microjoule as watt-hours."""
    return f"{uj / 3.6e9:.3f}" if uj else UNKNOWN


def hours(ms: int) -> str:
    """Milliseconds (of a core, of a device) as hours."""
    return f"{ms / 3_600_000:.4f}"


def kwh(uj: int) -> str:
    """Microjoule as kWh: a small task uses a millionth of one."""
    return f"{uj / 3.6e12:.6f}"


def kg(mg: int) -> str:
    """Milligram as kilogram."""
    return f"{mg / 1e6:.6f}"


def fine_cny(microcny: int) -> str:
    """Micro-CNY as CNY, to the last one."""
    return f"{microcny / 1e6:.6f}"


def exact_cny(microcny: int) -> str:
    """Micro-CNY as CNY, exactly, without needless zeros: as an option takes it."""
    whole, rest = divmod(microcny, 10**6)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


def clock(unix_s: int) -> str:
    """A time as this machine's clock shows it, with the day when it is not within a day from now."""
    form = "%H:%M" if 0 <= unix_s - time.time() < 86400 else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(unix_s))


def moment(stamp: Timestamp) -> str:
    """Month, day and time to the millisecond, as this machine's clock shows it."""
    shown = time.strftime("%m-%d %H:%M:%S", time.localtime(stamp.seconds))
    return f"{shown}.{stamp.nanos // 1_000_000:03d}"


def short_cny(microcny: int) -> str:
    """Micro-CNY as CNY for a sentence: in fen, or finer where that would be nothing."""
    return f"{microcny / 1e6:.2f}" if microcny >= 5000 or not microcny else f"{microcny / 1e6:.6f}"


def duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, name, small_size, small_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {name} {rest} {small_name}" if rest else f"{whole // size} {name}"
    return f"{whole} s"


def age(stamp: Timestamp) -> str:
    """How long ago; clocks that differ never make it negative."""
    if not stamp.seconds:
        return UNKNOWN
    gone_s = max(0, int(time.time() - stamp.seconds))
    return f"{gone_s} s" if gone_s < 60 else duration(gone_s)


def size(size_bytes: int) -> str:
    """`1.5 MiB`"""
    if size_bytes < 1024:
        return f"{size_bytes} bytes"
    kib = size_bytes / 1024
    return f"{kib:.1f} KiB" if kib < 1024 else f"{kib / 1024:.1f} MiB"


def count(number: int, noun: str) -> str:
    """ "1 task", "2 tasks", "2 switches"."""
    ending = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{number} {noun}{ending}"
