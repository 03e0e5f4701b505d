"""The energy accounts of all nodes: fed by their readings, asked by whoever reports an allocation."""

from __future__ import annotations

import time
from collections.abc import Iterable

from mumian.api.v1.fleet_pb2 import NodeEnergy

from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.domain.energy_account import NodeAccount
from mumian_agent.runtime.journal import Entry

# The runners tell as often how much their tasks have used.
_CLOSED_EVERY_MS = 10_000


class _Open:
    """A node's account, and what its meter and the model have counted since it was last closed."""

    def __init__(self, node_id: str, idle_power_mw: int | None) -> None:
        self.account: NodeAccount[AllocationKey] = NodeAccount(node_id, idle_power_mw)
        self.read_s = self.closed_s = time.monotonic()
        self.metered_uj, self.modelled_uj = 0, 0
        self.is_metered = True


class EnergyAccounts:
    """By node. An allocation is opened on its node, and is there until it is settled."""

    def __init__(self, idle_power_mw: int | None) -> None:
        """`idle_power_mw` is that of the agent's own node, the first one read; None: learned."""
        self._idle_power_mw = idle_power_mw
        self._nodes: dict[str, _Open] = {}

    def charged_uj(self, node_id: str, entry: Entry) -> int:
        """What a live allocation has been charged so far; it is opened when it is not known."""
        account = self._of(node_id).account
        if not account.knows(entry.key):
            account.open(entry.key, entry.modelled_uj, entry.status.it_energy_uj)
        return account.charged_uj(entry.key)

    def settle(self, node_id: str, entry: Entry) -> int:
        """What an allocation that has ended is charged in all."""
        self.charged_uj(node_id, entry)
        return self._of(node_id).account.settle(entry.key, entry.modelled_uj)

    def read(self, node_id: str, power_mw: int | None, modelled_mw: int, live: Iterable[Entry]) -> None:
        """A node takes so much by its meter, None: it has none now, and so much by the model.

        `live`: the allocations on it.
        """
        node, now_s = self._of(node_id), time.monotonic()
        span_ms = round((now_s - node.read_s) * 1000)
        node.read_s = now_s
        node.metered_uj += (power_mw or 0) * span_ms
        node.modelled_uj += modelled_mw * span_ms
        node.is_metered &= power_mw is not None
        since_ms = round((now_s - node.closed_s) * 1000)
        if since_ms >= _CLOSED_EVERY_MS:
            metered_uj = node.metered_uj if node.is_metered else None
            modelled_uj = {entry.key: entry.modelled_uj for entry in live}
            node.account.close(since_ms, metered_uj, node.modelled_uj, modelled_uj)
            node.closed_s, node.metered_uj, node.modelled_uj, node.is_metered = now_s, 0, 0, True

    def energies(self) -> list[NodeEnergy]:
        """Where the energy of each node went."""
        return [node.account.energy() for node in self._nodes.values()]

    def _of(self, node_id: str) -> _Open:
        if node_id not in self._nodes:
            self._nodes[node_id] = _Open(node_id, None if self._nodes else self._idle_power_mw)
        return self._nodes[node_id]
