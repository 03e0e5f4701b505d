"""The fault suite in short: one round each of the faults that differ most."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.suite import suite
from tests.oracle.history import History

pytestmark = pytest.mark.etcd


async def test_nothing_is_lost_or_done_twice_when_leaders_die_sleep_and_hand_over(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    async with suite(tmp_path, history, count=2, lease_ttl_s=2) as city:
        for fault in ("repeat", "die-before-acknowledgement", "die-before-dispatch", "sleep", "hand-over"):
            outcome = await city.round(fault, seed=1)
            assert outcome.verdict.is_good, f"{fault}; {outcome.verdict}\nhistory in {history.path}"
    history.close()
