"""Site after site, and in each site node after node."""

from __future__ import annotations

from collections import defaultdict

from mumian_orchestrator.bench.sim.policies.base import Cluster
from mumian_orchestrator.bench.sim.policies.booked import Allowed, BookedPolicy
from mumian_orchestrator.bench.sim.policies.books import Books, Task


class RoundRobin(BookedPolicy):
    """The next site in turn that has room, and there the next node in turn that has."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._of_site: dict[str, list[int]] = {}
        self._turn = 0
        self._turn_of_site: dict[str, int] = defaultdict(int)

    def begin(self, cluster: Cluster) -> None:
        """The nodes of each site, in order of declaration."""
        if not self._of_site:
            for number, node in enumerate(cluster.nodes):
                self._of_site.setdefault(node.site_id, []).append(number)

    def choose(self, books: Books, task: Task, allowed: Allowed | None) -> int | None:
        """From where the last turn ended."""
        sites, allowed_sites = list(self._of_site), {kind.site_id for kind in task.kinds}
        for step in range(len(sites)):
            site_id = sites[(self._turn + step) % len(sites)]
            numbers = self._of_site[site_id]
            if site_id not in allowed_sites:
                continue
            for node_step in range(len(numbers)):
                at = (self._turn_of_site[site_id] + node_step) % len(numbers)
                room = books.rooms[numbers[at]]
                if room.kind in task.kinds and room.fits(task) and (allowed is None or allowed(room)):
                    self._turn = (self._turn + step + 1) % len(sites)
                    self._turn_of_site[site_id] = at + 1
                    return numbers[at]
        return None
