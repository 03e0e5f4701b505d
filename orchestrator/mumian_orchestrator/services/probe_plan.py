"""Who measures the way to whom: each site to every zone, and to some other sites."""

from __future__ import annotations

import heapq
import zlib
from bisect import insort
from collections.abc import Mapping, Sequence

# What network coordinates take to estimate the other pairs: see docs/benchmarks.md, "Round trips".
PEERS_MAX = 32


class ProbePlan:
    """Up to 33 sites all probe all. Of more, each probes those 32 that a hash of the pair puts first: who
    joins changes what few others do, and the order in which sites join changes nothing.
    """

    def __init__(self, zones: Mapping[str, str]) -> None:
        """`zones`: the reflector (host:port) of each."""
        self._zones = zones
        self._reflectors: dict[str, str] = {}
        self._peers: dict[str, list[tuple[int, str]]] = {}  # of each site, the hash first

    def join(self, site_id: str, reflector: str) -> None:
        """A site answers probes there (host:port); empty: it does not answer."""
        self._reflectors[site_id] = reflector
        if site_id in self._peers:
            return
        for other, peers in self._peers.items():
            insort(peers, (_rank(other, site_id), site_id))
            del peers[PEERS_MAX:]
        self._peers[site_id] = heapq.nsmallest(PEERS_MAX, ((_rank(site_id, o), o) for o in self._peers))

    def probing(self, site_id: str) -> Sequence[str]:
        """The sites that probe this one."""
        return [other for other, peers in self._peers.items() if (_rank(other, site_id), site_id) in peers]

    def targets(self, site_id: str) -> dict[str, str]:
        """What a site is to probe, by id, as host:port."""
        peers = {peer: self._reflectors[peer] for _, peer in self._peers.get(site_id, ())}
        return {target: address for target, address in {**self._zones, **peers}.items() if address}


def _rank(site_id: str, peer: str) -> int:
    return zlib.crc32(f"{site_id} {peer}".encode())
