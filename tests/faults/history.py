"""What happened in a run, in order: one JSON object a line, so that a failure can be read afterwards."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class History:
    """Kept in memory for the oracle, and written to a file as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", buffering=1)
        self._begin_s = time.monotonic()
        self._by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def add(self, what: str, **about: Any) -> None:
        """Something happens now."""
        event = {"s": round(time.monotonic() - self._begin_s, 4), "what": what, **about}
        self._by_kind[what].append(event)
        self._file.write(json.dumps(event) + "\n")

    def of(self, what: str) -> Sequence[dict[str, Any]]:
        """All events of a kind so far, oldest first; it grows."""
        return self._by_kind[what]

    def close(self) -> None:
        """Nothing more happens."""
        self._file.close()
