"""What processes that are nobody's task use of a node, steadied: it is not offered."""

from __future__ import annotations

from collections import deque

# Samples come every ten seconds: a burst of less than a minute changes what is offered by its mean only.
_SAMPLES = 6
# What is offered changes in such steps, and only when it is off by one of them: each change makes the
# coordinator consider anew what waits.
_CPU_STEP_MILLI, _MEMORY_STEP_MIB = 100, 256


class ForeignUse:
    """The mean over the newest samples, rounded up, with hysteresis of one step."""

    def __init__(self) -> None:
        self._cpu_milli: deque[int] = deque(maxlen=_SAMPLES)
        self._memory_mib: deque[int] = deque(maxlen=_SAMPLES)
        self._withheld = (0, 0)

    def add(self, cpu_milli: int, memory_mib: int) -> None:
        """One sample."""
        self._cpu_milli.append(cpu_milli)
        self._memory_mib.append(memory_mib)
        self._withheld = (
            _steady(self._withheld[0], self._cpu_milli, _CPU_STEP_MILLI),
            _steady(self._withheld[1], self._memory_mib, _MEMORY_STEP_MIB),
        )

    def withheld(self) -> tuple[int, int]:
        """Thousandths of a core and MiB that are not offered."""
        return self._withheld


def _steady(before: int, samples: deque[int], step: int) -> int:
    mean = sum(samples) // len(samples)
    rounded_up = -(-mean // step) * step
    # Below: only when a whole step has become free, so that a mean beside a step's edge does not flap.
    if rounded_up < before and before - mean < 2 * step:
        return before
    return rounded_up
