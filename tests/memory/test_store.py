"""The store in memory keeps the stores' contract."""

from __future__ import annotations

import pytest
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.ports.key_value import KeyValue

from tests.orchestrator.store_contract import KeyValueContract, StoreContract


@pytest.fixture
def prefix() -> str:
    """Any will do: each test has a cluster of its own."""
    return "/mumian/"


@pytest.fixture
async def kv() -> KeyValue:
    """The only client of its cluster."""
    return MemoryKeyValue(MemoryCluster())


class TestKeyValueInMemory(KeyValueContract):
    """Transactions, leases and watches."""


class TestStoreInMemory(StoreContract):
    """Fenced commits and watches that resume."""
