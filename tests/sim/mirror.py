"""A copy of what is stored, kept by a watch: what a follower would have."""

from __future__ import annotations

import asyncio

from mumian_orchestrator.adapters.memory.key_value import MemoryKeyValue
from mumian_orchestrator.services.store.reader import StoreReader

from tests.sim.processes import Process
from tests.sim.roads import Roads
from tests.sim.store import RememberingCluster, StoreLink, Weather

# It is behind by a way from the store, and has to catch up within two seconds.
_LOOKS, _LOOK_EVERY_S = 20, 0.1


class Mirror:
    """Loads once, and watches from then on, however often the watch breaks."""

    def __init__(self, cluster: RememberingCluster, prefix: str, everywhere: Weather, roads: Roads) -> None:
        self.weather = Weather()
        self.entries: dict[str, bytes] = {}
        self._cluster, self._data = cluster, f"{prefix}data/"
        process = Process("mirror")
        link = StoreLink(process, everywhere, self.weather, roads.random, roads.world)
        self._reader = StoreReader(MemoryKeyValue(cluster, link), prefix)
        process.start(self._follow())

    async def _follow(self) -> None:
        snapshot = await self._reader.load()
        self.entries = dict(snapshot.entries)
        async for change in self._reader.watch("", snapshot.revision + 1):
            for event in change.events:
                if event.value is None:
                    self.entries.pop(event.key, None)
                else:
                    self.entries[event.key] = event.value
            if change.present is not None:
                self.entries = {key: self.entries[key] for key in change.present}

    async def lasting_differences(self) -> list[str]:
        """The keys that it has wrong, and not only because something has just happened."""
        for _ in range(_LOOKS):
            if not self._differences():
                return []
            await asyncio.sleep(_LOOK_EVERY_S)
        return self._differences()

    def _differences(self) -> list[str]:
        data = self._data
        stored = {
            key.removeprefix(data): entry.value
            for key, entry in self._cluster.entries.items()
            if key.startswith(data)
        }
        keys = sorted(stored.keys() | self.entries.keys())
        return [key for key in keys if stored.get(key) != self.entries.get(key)]
