"""What happened in a run, in order: one JSON object a line, so that a failure can be read afterwards."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class History:
    """Kept in memory for the oracle, and written to a file, if there is one, as it grows.

    Args:
        now_s: the clock, in seconds.
    """

    def __init__(self, path: Path | None = None, now_s: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._file = path.open("w", buffering=1) if path else None
        self._now_s, self._begin_s = now_s, now_s()
        self._events: list[dict[str, Any]] = []
        self._by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def add(self, what: str, **about: Any) -> None:
        """Something happens now."""
        event = {"s": round(self._now_s() - self._begin_s, 4), "what": what, **about}
        self._events.append(event)
        self._by_kind[what].append(event)
        if self._file is not None:
            self._file.write(json.dumps(event) + "\n")

    def of(self, what: str) -> Sequence[dict[str, Any]]:
        """All events of a kind so far, oldest first; it grows."""
        return self._by_kind[what]

    def lines(self) -> list[str]:
        """All of it, one event a line."""
        return [json.dumps(event) for event in self._events]

    def close(self) -> None:
        """Nothing more happens."""
        if self._file is not None:
            self._file.close()
