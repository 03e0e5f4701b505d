"""`mumian-coordinator ledger` on a real etcd: put away what is over, and find it all again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from google.protobuf.timestamp_pb2 import Timestamp
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue
from mumian_orchestrator.ports.key_value import Put
from mumian_orchestrator.ports.store import LOG
from mumian_orchestrator.services.money.ledger_book import BudgetLimits, LedgerBook
from mumian_orchestrator.services.store.reader import DATA

from tests.etcd_cluster import EtcdCluster
from tests.processes import SCRIPTS

pytestmark = pytest.mark.etcd

_MONTHS_UNIX_S = (1_788_300_000, 1_790_900_000, 1_793_600_000)  # in September, October, November of 2026
_ENTRIES_A_MONTH = 1300


class _Calendar:
    """A clock that a test sets."""

    unix_s = 0

    def now(self) -> Timestamp:
        """As it was set."""
        return Timestamp(seconds=self.unix_s)

    def monotonic_s(self) -> float:
        """Likewise."""
        return float(self.unix_s)


async def test_what_is_put_away_leaves_etcd_and_is_verified_and_exported_as_before(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path) as cluster:
        [endpoint] = cluster.endpoints
        config = tmp_path / "coordinator.yaml"
        files = {"records_dir": str(tmp_path / "records")}
        config.write_text(yaml.safe_dump({"listen": "127.0.0.1:1", "etcd": endpoint, **files}))
        client = EtcdClient([endpoint], attempt_s=30)
        kv = EtcdKeyValue(client)
        try:
            await _fill(kv)
            verified, exported = _ledger("verify", config), _ledger("export", config)
            assert _ledger("put-away", config).startswith(
                "put away 2026-09, 2026-10: entries up to 2600 lie in"
            )
            left = [entry.key for entry in (await kv.list("/mumian/log/ledger/")).entries]
            assert len(left) == _ENTRIES_A_MONTH
            assert all("/2026-11/" in key for key in left)
            assert (_ledger("verify", config), _ledger("export", config)) == (verified, exported)
            assert _ledger("put-away", config).startswith("nothing to put away")
        finally:
            await client.close()
    assert [json.loads(line)["sequence"] for line in exported.splitlines()][-1] == "3900"


async def _fill(kv: EtcdKeyValue) -> None:
    """A budget that is changed again and again, in three months."""
    clock = _Calendar()
    book = LedgerBook(clock)
    writes = {}
    for clock.unix_s in _MONTHS_UNIX_S:
        for number in range(_ENTRIES_A_MONTH):
            made = book.set_limits("acme", BudgetLimits(month=1 + number, year=None))
            writes.update({write.key: write.value or b"" for write in made})
    puts = [
        Put(f"/mumian/{key if key.startswith(LOG) else DATA + key}", value) for key, value in writes.items()
    ]
    for begin in range(0, len(puts), 100):
        await kv.transact([], puts[begin : begin + 100])


def _ledger(command: str, config: Path) -> str:
    argv = [str(SCRIPTS / "mumian-coordinator"), "ledger", command, "--config", str(config)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
