"""What runs in memory runs in virtual time: no test in this folder waits for anything real."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mumian_orchestrator.adapters.memory.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], VirtualTimeLoop]]:
    """The loop of every test in this folder."""
    return {"virtual_time": VirtualTimeLoop}
