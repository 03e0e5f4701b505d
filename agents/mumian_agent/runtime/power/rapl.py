"""RAPL by the kernel's powercap tree: energy counters of CPU packages and their memory.

https://docs.kernel.org/power/powercap/powercap.html: `energy_uj` counts microjoules up to
`max_energy_range_uj` and begins again. A domain is a folder `intel-rapl:N`, also on AMD; those below it
(`intel-rapl:N:M`) are parts. Memory (`dram`) is not contained in `package-N`; `core` and `uncore` are, and
`psys` contains all, so each is counted once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mumian_agent.runtime.power.meter import MeterError

POWERCAP = Path("/sys/class/powercap")
_LEAST_S = 0.1


class RaplMeter:
    """The CPU packages and their memory; not fans, disks and power supplies."""

    name = "rapl"

    def __init__(self, domains: Sequence[Path], clock: Callable[[], float] = time.monotonic) -> None:
        """Readings count from here on. Raises MeterError."""
        self._domains, self._clock = domains, clock
        self._ranges_uj = [_number(domain / "max_energy_range_uj") for domain in domains]
        self._before_uj, self._before_s = self._counters_uj(), clock()

    @classmethod
    def find(cls, powercap: Path = POWERCAP) -> RaplMeter | None:
        """This machine's; None where there is none, or only root may read it."""
        domains = [path for path in sorted(powercap.glob("intel-rapl:*")) if _is_counted(path)]
        try:
            return cls(domains) if domains else None
        except MeterError:
            return None

    def power_mw(self) -> int:
        """The mean since the last reading."""
        now_uj, now_s = self._counters_uj(), self._clock()
        since_s = now_s - self._before_s
        if since_s < _LEAST_S:
            raise MeterError("was asked again too soon")
        total_uj = sum(map(used_uj, self._before_uj, now_uj, self._ranges_uj))
        self._before_uj, self._before_s = now_uj, now_s
        return round(total_uj / since_s / 1000)

    def _counters_uj(self) -> list[int]:
        return [_number(domain / "energy_uj") for domain in self._domains]


def used_uj(before_uj: int, now_uj: int, range_uj: int) -> int:
    """What a counter has counted, when it has begun again at most once."""
    return now_uj - before_uj if now_uj >= before_uj else now_uj - before_uj + range_uj + 1


def _is_counted(domain: Path) -> bool:
    try:
        name = (domain / "name").read_text().strip()
    except OSError:
        return False
    return name.startswith("package") or name == "dram"


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError) as error:
        raise MeterError(f"cannot be read: {error}") from None
