"""Reads generalized assignment instances in the OR-Library's format.

The file is a row of whole numbers; line breaks mean nothing. An instance is: agents, jobs, the costs
agent by agent, the amounts that the jobs take agent by agent, the agents' capacities. A file of
several instances begins with their number.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What the engine computes with is 64 bits wide; a sum over all jobs must fit too.
LARGEST_VALUE = 10**12
# Agents x jobs of one instance; the tables cross the border as messages of at most 2 GiB.
LARGEST_TABLE = 20_000_000
NUMBER = re.compile(r"-?[0-9]{1,100}")


class GapFileError(Exception):
    """A file that is not in the format: its name, the line, the value and advice."""


@dataclass(frozen=True)
class GapInstance:
    """Each job to one agent within the agents' capacities, at the least cost.

    Args:
        cost: of each job at each agent, agent by agent: agents x jobs entries.
        weight: what it takes there, likewise.
        capacity: one for each agent.
    """

    name: str
    agents: int
    jobs: int
    cost: Sequence[int]
    weight: Sequence[int]
    capacity: Sequence[int]


def read_instances(path: Path) -> list[GapInstance]:
    """All instances of a file, named after it; of several the second is `NAME-2`.

    Raises:
        GapFileError: the file cannot be read or is not in the format.
    """
    numbers = _Numbers(path)
    if not numbers.announces_several():
        instances = [_instance(numbers, path.stem, "")]
    else:
        count = numbers.next("the number of instances")
        instances = [
            _instance(numbers, f"{path.stem}-{i}", f" of instance {i} of {count}")
            for i in range(1, count + 1)
        ]
    numbers.expect_end()
    return instances


def _instance(numbers: _Numbers, name: str, which: str) -> GapInstance:
    agents = numbers.next(f"the number of agents{which}", least=1)
    jobs = numbers.next(f"the number of jobs{which}", least=1)
    if agents * jobs > LARGEST_TABLE:
        raise numbers.error(
            f"{agents} agents x {jobs} jobs are more than the {LARGEST_TABLE} pairs that this command takes; "
            "check both numbers",
            numbers.position - 1,
        )
    cost = numbers.table(agents * jobs, f"costs{which}")
    weight = numbers.table(agents * jobs, f"weights{which}")
    capacity = numbers.table(agents, f"capacities{which}")
    return GapInstance(name, agents, jobs, cost, weight, capacity)


class _Numbers:
    """The numbers of a file, each with the line that it stands on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = enumerate(_text(path).splitlines(), start=1)
        self._words = [(word, number) for number, line in lines for word in line.split()]
        self.position = 0
        if not self._words:
            raise GapFileError(f"{path} is empty; give a file in the OR-Library's GAP format")

    def announces_several(self) -> bool:
        """Whether the first number is that of the instances: only the file's length tells.

        Where neither reading fits the length, several are meant if the first of them is there
        whole and a single instance would be far shorter than the file.
        """
        length = len(self._words)
        single = _length(self._leading(0))
        end, whole = 1, 0
        for _ in range(self._leading(0)[0]):
            if end + _length(self._leading(end)) > length:
                break
            end += _length(self._leading(end))
            whole += 1
        if single == length or whole == 0:
            return False
        return (whole == self._leading(0)[0] and end == length) or 2 * single < length

    def _leading(self, position: int) -> tuple[int, int]:
        """Two numbers of the file, -1 where there is none."""
        words = [word for word, _ in self._words[position : position + 2]] + ["", ""]
        first, second = (int(word) if NUMBER.fullmatch(word) else -1 for word in words[:2])
        return first, second

    def next(self, what: str, least: int = 0) -> int:
        """Read one number, which is `what`."""
        if self.position == len(self._words):
            raise self.error(f"the file ends where {what} should stand; is it cut off?", self.position - 1)
        word = self._words[self.position][0]
        if not NUMBER.fullmatch(word):
            raise self.error(f"{word!r} stands where {what} should; give a whole number", self.position)
        if not least <= int(word) <= LARGEST_VALUE:
            raise self.error(
                f"{what} is {word}; give a number from {least} to {LARGEST_VALUE}", self.position
            )
        self.position += 1
        return int(word)

    def table(self, size: int, what: str) -> list[int]:
        """Read so many numbers."""
        end = self.position + size
        values = [self.next(f"one of the {what}") for _ in range(min(size, len(self._words) - self.position))]
        if len(values) < size:
            raise self.error(
                f"the file ends here, without {end - len(self._words)} of the {size} {what}; "
                "is it cut off, or are the numbers of agents and jobs wrong?",
                self.position - 1,
            )
        return values

    def expect_end(self) -> None:
        """Nothing may be left."""
        left = len(self._words) - self.position
        if left:
            raise self.error(
                f"the file should end before {self._words[self.position][0]!r} and goes on for {left} words; "
                "are the numbers of agents and jobs right?",
                self.position,
            )

    def error(self, message: str, position: int) -> GapFileError:
        """The message with the line of that number."""
        return GapFileError(f"{self._path}, line {self._words[position][1]}: {message}")


def _length(agents_and_jobs: tuple[int, int]) -> int:
    """How many numbers an instance has; more than any file where it cannot be one."""
    agents, jobs = agents_and_jobs
    return 2 + 2 * agents * jobs + agents if agents > 0 and jobs > 0 else sys.maxsize


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise GapFileError(
            f"{path} cannot be read: {error.strerror}; check its name and permissions"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise GapFileError(
            f"{path}, line {line}: byte 0x{error.object[error.start]:02x} is no text; "
            "give an unpacked file in the OR-Library's GAP format"
        ) from error
