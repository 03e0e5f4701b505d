"""The store on a real etcd keeps the stores' contract."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue
from mumian_orchestrator.ports.key_value import KeyValue

from tests.orchestrator.store_contract import KeyValueContract, StoreContract

pytestmark = pytest.mark.etcd


@pytest.fixture
def prefix() -> str:
    """One that nobody else has used."""
    return f"/{uuid.uuid4().hex}/"


@pytest.fixture
async def kv(etcd_endpoint: str) -> AsyncIterator[KeyValue]:
    """A client of the etcd that all tests share; a busy machine is no fault here."""
    client = EtcdClient([etcd_endpoint], attempt_s=30)
    yield EtcdKeyValue(client)
    await client.close()


class TestKeyValueOnEtcd(KeyValueContract):
    """Transactions, leases and watches."""


class TestStoreOnEtcd(StoreContract):
    """Fenced commits and watches that resume."""
