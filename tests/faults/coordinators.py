"""Several coordinator processes on one etcd, and what can be done to them."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from mumian_orchestrator.ports.key_value import KeyValue, NoAnswerError
from mumian_orchestrator.services.failpoints import Failpoint
from mumian_orchestrator.services.leadership import leader_key

from tests.orchestrator.conftest import Coordinator

KEY_PREFIX = "/faults/"
_LOOK_EVERY_S = 0.02


class Coordinators:
    """All of one configuration; each can be told by its address."""

    def __init__(self, folder: Path, etcd: str, kv: KeyValue, count: int, lease_ttl_s: int) -> None:
        self._kv, self._failpoints = kv, folder / "failpoint"
        self._all: dict[str, Coordinator] = {}
        for number in range(count):
            own = folder / f"coordinator-{number}"
            own.mkdir()
            started = Coordinator(
                own,
                etcd,
                key_prefix=KEY_PREFIX,
                lease_ttl_s=lease_ttl_s,
                unreachable_after_ms=10_000,
                environment={"MUMIAN_FAILPOINTS": str(self._failpoints)},
            )
            self._all[started.address] = started

    @property
    def addresses(self) -> list[str]:
        """Of all, whether they live or not."""
        return list(self._all)

    async def leader(self) -> str:
        """The address of the one that leads; waits while none does."""
        key = leader_key(KEY_PREFIX)
        while True:
            try:
                for entry in (await self._kv.list(key)).entries:
                    if entry.key == key:
                        return entry.value.decode().partition(" ")[0]
            except NoAnswerError:
                pass
            await asyncio.sleep(_LOOK_EVERY_S)

    def kill(self, address: str) -> None:
        """kill -9."""
        self._all[address].running.kill()

    def send(self, address: str, number: signal.Signals) -> None:
        """A signal."""
        self._all[address].running.process.send_signal(number)

    async def stop(self, address: str) -> None:
        """SIGTERM, and wait for its clean end."""
        status = await asyncio.to_thread(self._all[address].running.stop)
        assert status == 0, f"{address} ended with {status}"

    async def die(self, failpoint: Failpoint) -> str:
        """Have the leader die at a failpoint; its address, once it is dead."""
        self._failpoints.write_text(failpoint)
        async with asyncio.timeout(60):
            while True:
                for address, coordinator in self._all.items():
                    if coordinator.running.process.poll() is not None:
                        return address
                await asyncio.sleep(_LOOK_EVERY_S)

    async def start(self, address: str) -> None:
        """Start one that is dead, and wait until it is ready."""
        self._all[address].running.sweep()
        await asyncio.to_thread(self._all[address].start)

    def sweep(self) -> None:
        """Whatever is left of them."""
        self._failpoints.unlink(missing_ok=True)
        for coordinator in self._all.values():
            coordinator.running.sweep()
