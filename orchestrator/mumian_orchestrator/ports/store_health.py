"""How the store's servers are: what an operator needs to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """One member of the store's cluster."""

    endpoint: str
    problem: str = ""  # why nothing more is known; empty when it answers
    version: str = ""
    size_bytes: int = 0  # of its file
    in_use_bytes: int = 0  # of that: the rest is freed by defragmenting
    quota_bytes: int | None = None  # where it stops taking writes
    leads: bool = False
    has_leader: bool = False
    clock_ahead_s: float | None = None  # of this machine's; its own has whole seconds


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a member has raised, until an operator takes it back: NOSPACE or CORRUPT."""

    kind: str
    endpoint: str


class StoreHealth(Protocol):
    """The servers, each asked by itself."""

    async def servers(self) -> Sequence[ServerHealth]:
        """All that are configured, in that order."""

    async def alarms(self) -> Sequence[Alarm]:
        """What the cluster has raised.

        Raises:
            NoAnswerError: nobody answered.
        """
