"""Quantities as people write them, to the API's integers.

Each function raises ValueError with the second half of a sentence ("must be ...; write ..."), to which
its caller adds the name and the value.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

Quantity = int | float | str
QUANTITY_MAX = 1 << 40  # the coordinator's limit for any quantity

_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-zµ%/]*)\s*")
_US = {
    "us": 1,
    "µs": 1,
    "ms": 1000,
    "s": 10**6,
    "m": 60 * 10**6,
    "min": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 86400 * 10**6,
}
_MIB = {
    "Mi": Decimal(1),
    "Gi": Decimal(1024),
    "Ti": Decimal(1024**2),
    "MiB": Decimal(1),
    "GiB": Decimal(1024),
    "TiB": Decimal(1024**2),
    # Decimal units are rounded up to whole MiB: nobody gets less than asked for.
    "MB": Decimal(10**6) / 2**20,
    "GB": Decimal(10**9) / 2**20,
    "TB": Decimal(10**12) / 2**20,
}
_MILLI = {"": 1000, "m": 1}
_KBPS = {
    "kbit/s": 1,
    "Mbit/s": 1000,
    "Gbit/s": 10**6,
    "kbps": 1,
    "Mbps": 1000,
    "Gbps": 10**6,
}


def cpu_milli(value: Quantity) -> int:
    """Cores (0.5, "2", "500m") in thousandths of a core."""
    return _whole(_scaled(value, {**_MILLI, "core": 1000, "cores": 1000}, "cores, such as 0.5, 2 or 500m"))


def memory_mib(value: Quantity) -> int:
    """A size ("512MiB", "2GiB") in MiB."""
    mib = _scaled(value, _MIB, "a size with its unit, such as 512MiB or 2GiB")
    return _within_limit(int(mib.to_integral_value(ROUND_CEILING)))


def duration_us(value: Quantity) -> int:
    """A duration ("20ms", "9.4ms", "10m", "2h") in microseconds."""
    return _whole(_scaled(value, _US, "a duration with its unit, such as 500us, 20ms, 1.5s or 10m"))


def duration_ms(value: Quantity) -> int:
    """A duration ("10m") in milliseconds, at least one."""
    ms, rest = divmod(duration_us(value), 1000)
    if rest or not ms:
        raise ValueError("must be whole milliseconds, at least 1ms; write 500ms, 10m or 2h")
    return ms


def duration_ms_or_none(value: Quantity) -> int:
    """A duration in whole milliseconds; "0s" is none."""
    return 0 if value == "0s" else duration_ms(value)


def duration_s(value: Quantity) -> int:
    """A duration ("8h") in seconds, at least one."""
    seconds, rest = divmod(duration_us(value), 10**6)
    if rest or not seconds:
        raise ValueError("must be whole seconds, at least 1s; write 90s, 10m or 8h")
    return seconds


def duration_s_or_none(value: Quantity) -> int:
    """A duration ("5m") in seconds; "0s" is none at all."""
    return 0 if not duration_us(value) else duration_s(value)


def bandwidth_kbps(value: Quantity) -> int:
    """A bandwidth ("50Mbit/s") in kilobits a second, at least one."""
    kbps = _whole(_scaled(value, _KBPS, "a bandwidth with its unit, such as 50Mbit/s or 1Gbit/s"))
    if not kbps:
        raise ValueError("must be positive; write 50Mbit/s, or leave it out")
    return kbps


def accelerator_milli(value: Quantity) -> int:
    """Devices (0.5, 2) in thousandths: a share of one, or whole ones."""
    milli = _whole(_scaled(value, _MILLI, "devices: a share of one such as 0.5, or whole ones such as 2"))
    if not milli:
        raise ValueError("must be positive; leave accelerators out to ask for none")
    if milli > 1000 and milli % 1000:
        below = milli // 1000
        raise ValueError(
            f"must be a share of one device or whole devices; use at most 0.999, {below} or {below + 1}"
        )
    return milli


def pue_permille(value: Quantity) -> int:
    """A PUE (1.25) in permille."""
    permille = _whole(_scaled(value, {"": 1000}, "a PUE such as 1.25"))
    if permille < 1000:
        raise ValueError("must be at least 1.0: no site uses less power than its IT; write 1.25")
    if permille > 10000:
        raise ValueError("must be at most 10; a PUE is a ratio: write 1.25")
    return permille


def share_permille(value: Quantity) -> int:
    """A share ("95%", 0.95) in permille, more than nothing and at most all."""
    permille = _whole(_scaled(value, {"": 1000, "%": 10}, "a share, such as 95% or 0.95"))
    if not 1 <= permille <= 1000:
        raise ValueError("must be more than 0 and at most 100%; leave it out to mean all")
    return permille


def money_microcny(value: Quantity) -> int:
    """CNY (0.05) in micro-CNY, more than nothing."""
    microcny = _whole(_scaled(value, {"": 10**6}, "an amount of CNY, such as 0.05"), decimals="six")
    if not microcny:
        raise ValueError("must be positive; leave it out if it is to cost nothing")
    return microcny


def rent_microcny_per_hour(value: Quantity) -> int:
    """CNY an hour (0.2, "0.2 CNY/h") in micro-CNY, more than nothing."""
    units = {"": 10**6, "CNY/h": 10**6}
    microcny = _whole(_scaled(value, units, "CNY an hour, such as 0.2"), decimals="six")
    if not microcny:
        raise ValueError("must be positive; leave it out to take any rent")
    return microcny


class WholeNumber:
    """Parses a whole number from `least` to `most`."""

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def __call__(self, value: Quantity) -> int:
        text = str(value).strip()
        if not re.fullmatch(r"[0-9]{1,18}", text) or not self._least <= int(text) <= self._most:
            raise ValueError(f"must be a whole number from {self._least} to {self._most}")
        return int(text)


def _scaled(value: Quantity, units: dict[str, int] | dict[str, Decimal], wanted: str) -> Decimal:
    if isinstance(value, bool):
        raise ValueError(f"must be {wanted}")
    match = _NUMBER_AND_UNIT.fullmatch(str(value))
    unit = match[2] if match else ""
    if match is None or unit not in units:
        known = {name.lower(): name for name in units}
        advice = f"; write {match[1]}{known[unit.lower()]}" if match and unit.lower() in known else ""
        raise ValueError(f"must be {wanted}{advice}")
    return Decimal(match[1]) * units[unit]


def _whole(quantity: Decimal, decimals: str = "three") -> int:
    if quantity != quantity.to_integral_value():
        raise ValueError(f"is finer than can be asked for; use at most {decimals} decimals")
    return _within_limit(int(quantity))


def _within_limit(quantity: int) -> int:
    if quantity > QUANTITY_MAX:
        raise ValueError("is more than can be asked for")
    return quantity
