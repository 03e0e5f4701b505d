"""Forgetting history: the store keeps every version of every key until it is told not to."""

from __future__ import annotations

import asyncio

from mumian_orchestrator.ports.store import TermStore

# A follower that was away for longer lists everything anew.
HISTORY_S = 300.0


async def forget_old_history(store: TermStore, keep_s: float = HISTORY_S) -> None:
    """Compact again and again, until cancelled; between one and two times `keep_s` of history remain."""
    while True:
        revision = store.revision
        await asyncio.sleep(keep_s)
        await store.compact(revision)
