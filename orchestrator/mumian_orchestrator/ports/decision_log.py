"""Where it is kept what the engine was told, asked and has answered."""

from __future__ import annotations

from typing import Protocol


class DecisionLog(Protocol):
    """All calls come from one thread, return at once and never fail: placing goes on without a record."""

    def started(self) -> None:
        """A new engine begins, which knows nothing."""

    def changed(self, delta: bytes) -> None:
        """The engine's state has changed."""

    def asked(self, request: bytes) -> int:
        """It is asked for a plan on its state as it is now; returns the question's number."""

    def answered(self, question_number: int, plan: bytes) -> None:
        """What it has answered."""
