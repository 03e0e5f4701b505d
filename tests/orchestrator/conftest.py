"""A real coordinator on a real etcd."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import grpc
import pytest
import yaml
from mumian_orchestrator.main.free_ports import free_port

from tests.etcd_cluster import EtcdCluster
from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant
from tests.processes import SCRIPTS, Running


@pytest.fixture(scope="session")
def etcd_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One etcd for all tests; each coordinator has a key prefix of its own."""
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster.endpoints[0]


class Coordinator:
    """A coordinator that can be killed and started again on the same state."""

    def __init__(
        self,
        folder: Path,
        etcd: str | list[str],
        *,
        start: bool = True,
        environment: Mapping[str, str] | None = None,
        **more: object,
    ) -> None:
        """`more`: fields of its configuration."""
        self._environment = environment
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = folder
        config = {
            "listen": self.address,
            "etcd": etcd,
            "key_prefix": f"/{folder.name}-{free_port()}/",
            "zones": [{"id": "tianhe", "title": "Tianhe", "reflector": "127.0.0.1:9001"}],
            # Short, but longer than a busy machine keeps a process waiting.
            "heartbeat_interval_ms": 1000,
            "unreachable_after_ms": 3000,
            "lease_ttl_s": 5,
            **more,
        }
        self.config = folder / "coordinator.yaml"
        self.config.write_text(yaml.safe_dump(config))
        if start:
            self.start()

    def start(self) -> None:
        """Start it and wait until it leads."""
        argv = [str(SCRIPTS / "mumian-coordinator"), "--config", str(self.config)]
        self.running = Running(argv, self._folder, "coordinator", self._environment)
        self.running.wait_ready()

    def channel(self) -> grpc.aio.Channel:
        """A channel to it."""
        return grpc.aio.insecure_channel(self.address)


@pytest.fixture
def coordinator(tmp_path: Path, etcd_endpoint: str) -> Iterator[Coordinator]:
    """A coordinator with nothing stored, on its own."""
    started = Coordinator(tmp_path, etcd_endpoint)
    yield started
    started.running.sweep()


@pytest.fixture
async def channel(coordinator: Coordinator) -> AsyncIterator[grpc.aio.Channel]:
    """A channel that is closed when the test ends."""
    async with coordinator.channel() as opened:
        yield opened


@pytest.fixture
async def tenant(channel: grpc.aio.Channel) -> Tenant:
    """The tenant acme."""
    return Tenant(channel)


@pytest.fixture
async def agent(channel: grpc.aio.Channel) -> AsyncIterator[ScriptedAgent]:
    """The connected agent of site gz: one node of four cores."""
    connected = ScriptedAgent(channel)
    await connected.connect()
    yield connected
    await connected.disconnect()
