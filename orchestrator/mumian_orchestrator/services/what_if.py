"""How the fleet would fare after some changes, on a view of it; nothing happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mumian.api.v1 import error_pb2, fleet_pb2
from mumian.api.v1.fleet_pb2 import Link, Node, Site
from mumian.api.v1.planning_pb2 import AddNodes, AffectedTask, FleetChange, SetLink, SetPrice, SetPue
from mumian.api.v1.planning_service_pb2 import WhatIfResponse

from mumian_orchestrator.domain.arrangement import RunningTask, SearchLimits
from mumian_orchestrator.domain.decision import TaskId
from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.ports.engine import Engine, View
from mumian_orchestrator.services.arrangements import Arrangements
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import JobTable

NODES_ADDED_MAX = 10_000
PUE_PERMILLE_LEAST = 1000
QUANTITY_MAX = 1 << 40
_PRICES = {
    "cpu": "cpu_core_hour_microcny",
    "memory": "memory_gib_hour_microcny",
    "energy": "energy_kwh_microcny",
    "egress": "egress_gib_microcny",
}


class WhatIf:
    """Compares the fleet as it is with the fleet after some changes, each at its best."""

    def __init__(self, fleet: Fleet, table: JobTable, engine: Engine, arrangements: Arrangements) -> None:
        self._fleet, self._table, self._engine = fleet, table, engine
        self._arrangements = arrangements

    async def answer(self, changes: Sequence[FleetChange], limits: SearchLimits) -> WhatIfResponse:
        """The arrangements before and after, and which tasks the changes drive out.

        Raises:
            RequestRefusedError: INVALID_FIELD or SITE_NOT_FOUND.
        """
        changed = _Changed(self._fleet, changes)
        view, stock = self._engine.view(), self._arrangements.stock()
        driven_out = [task for task in stock.running if task.site_id in changed.emptied_site_ids]
        after_view, after_stock = self._after(view, changed), stock.without(driven_out)
        now, standing = await self._arrangements.as_it_runs(view, stock)
        before = await self._arrangements.best(view, stock, limits)
        left_alone, _ = await self._arrangements.as_it_runs(after_view, after_stock)
        after = await self._arrangements.best(after_view, after_stock, limits)
        new_places = {(p.job_id, p.task): p.node_id for p in after.solution.placements}
        affected = [_affected(task, new_places) for task in driven_out]
        for task in after_stock.running:
            broken = after.standing[task.allocation_id].broken
            if broken is not None and standing[task.allocation_id].broken is None:
                affected.append(_affected(task, new_places))
                affected[-1].broken.CopyFrom(broken)
        return WhatIfResponse(
            as_it_runs=now,
            best_before=before.arrangement,
            left_alone=left_alone,
            best_after=after.arrangement,
            affected=affected,
        )

    def _after(self, view: View, changed: _Changed) -> View:
        """The view after the changes; what ran on emptied sites is gone from it."""
        live = self._table.live_allocations()
        return view.changed(
            sites=list(changed.sites.values()),
            nodes=changed.nodes,
            links=list(changed.links.values()),
            removed_site_ids=sorted(changed.lost_site_ids),
            freed=[a.id for _, a in live if a.site_id in changed.drained_site_ids],
        )


class _Changed:
    """What the changes make of the fleet's facts."""

    def __init__(self, fleet: Fleet, changes: Sequence[FleetChange]) -> None:
        self._fleet = fleet
        self.sites: dict[str, Site] = {}
        self.nodes: list[Node] = []
        self.links: dict[tuple[str, str], Link] = {}
        self.drained_site_ids: set[str] = set()
        self.lost_site_ids: set[str] = set()
        if not changes:
            raise invalid([FieldFault("changes", "is empty; name at least one change")])
        for number, change in enumerate(changes):
            self._field = f"changes[{number}]"
            self._apply(change)
        # What is gone can be neither added nor changed.
        for site_id in self.lost_site_ids:
            self.sites.pop(site_id, None)
        self.nodes = [node for node in self.nodes if node.site_id not in self.lost_site_ids]
        self.links = {key: link for key, link in self.links.items() if key[1] not in self.lost_site_ids}

    @property
    def emptied_site_ids(self) -> set[str]:
        """The sites that keep nothing of what they run."""
        return self.drained_site_ids | self.lost_site_ids

    def _apply(self, change: FleetChange) -> None:
        match change.WhichOneof("change"):
            case "drain_site_id":
                self._site("drain_site_id", change.drain_site_id).health = fleet_pb2.HEALTH_DRAINING
                self.drained_site_ids.add(change.drain_site_id)
            case "lose_site_id":
                self._site("lose_site_id", change.lose_site_id)
                self.lost_site_ids.add(change.lose_site_id)
            case "add_nodes":
                self._add_nodes(change.add_nodes)
            case "set_pue":
                self._set_pue(change.set_pue)
            case "set_price":
                self._set_price(change.set_price)
            case "set_link":
                self._set_link(change.set_link)
            case _:
                raise invalid([FieldFault(self._field, "is empty; set one of its fields")])

    def _add_nodes(self, added: AddNodes) -> None:
        like = next((n for n in self._fleet.nodes() if n.id == added.like_node_id), None)
        if like is None:
            raise self._wrong(
                "add_nodes.like_node_id", f"({added.like_node_id}) is no node; `mumian nodes` lists them"
            )
        self._check("add_nodes.count", added.count, 1, NODES_ADDED_MAX)
        for number in range(added.count):
            node = Node()
            node.CopyFrom(like)
            # No node that an agent reports has such an id.
            node.id = f"{like.id}+{len(self.nodes) + number + 1}"
            node.health = fleet_pb2.HEALTH_READY
            self.nodes.append(node)

    def _set_pue(self, pue: SetPue) -> None:
        site = self._site("set_pue.site_id", pue.site_id)
        self._check("set_pue.average_permille", pue.average_permille, PUE_PERMILLE_LEAST, 10 * 1000)
        marginal = pue.marginal_permille or pue.average_permille
        self._check("set_pue.marginal_permille", marginal, PUE_PERMILLE_LEAST, 10 * 1000)
        site.pue.average_permille, site.pue.marginal_permille = pue.average_permille, marginal

    def _set_price(self, price: SetPrice) -> None:
        site = self._site("set_price.site_id", price.site_id)
        self._check("set_price.microcny", price.microcny, 0, QUANTITY_MAX)
        models = {a.model for node in self._fleet.nodes(site.id) for a in node.accelerators}
        if price.what in _PRICES:
            setattr(site.prices, _PRICES[price.what], price.microcny)
        elif price.what in models:
            site.prices.accelerator_hour_microcny[price.what] = price.microcny
        else:
            known = ", ".join([*_PRICES, *sorted(models)])
            raise self._wrong("set_price.what", f"({price.what!r}) has no price at {site.id}; use {known}")

    def _set_link(self, wanted: SetLink) -> None:
        key = (wanted.from_id, wanted.to_site_id)
        self._site("set_link.to_site_id", wanted.to_site_id)
        if wanted.from_id not in self._fleet.zones:
            self._site("set_link.from_id", wanted.from_id, "zone or site")
        known = next((link for link in self._fleet.links(wanted.from_id) if link.to_site_id == key[1]), None)
        link = self.links.setdefault(key, Link(from_id=key[0], to_site_id=key[1]))
        if known is not None and not link.rtt_p99_us:
            link.CopyFrom(known)
        if wanted.HasField("rtt_p99_us"):
            self._check("set_link.rtt_p99_us", wanted.rtt_p99_us, 1, QUANTITY_MAX)
            link.rtt_p99_us = wanted.rtt_p99_us
            link.rtt_p50_us = min(link.rtt_p50_us or wanted.rtt_p99_us, wanted.rtt_p99_us)
        if wanted.HasField("bandwidth_kbps"):
            self._check("set_link.bandwidth_kbps", wanted.bandwidth_kbps, 1, QUANTITY_MAX)
            link.bandwidth_kbps = wanted.bandwidth_kbps
        if not link.rtt_p99_us:
            raise self._wrong("set_link.rtt_p99_us", "is missing: nobody has measured this link yet; say it")

    def _site(self, field: str, site_id: str, wanted: str = "site") -> Site:
        if site_id not in self.sites:
            site = self._fleet.site(site_id)
            if site is None:
                known = ", ".join(site.id for site in self._fleet.sites()) or "none yet"
                raise RequestRefusedError(
                    error_pb2.ERROR_REASON_SITE_NOT_FOUND,
                    f"{wanted} ({site_id}) of {self._field} does not exist; known: {known}",
                    [FieldFault(f"{self._field}.{field}", f"({site_id}) does not exist")],
                )
            self.sites[site_id] = site
        return self.sites[site_id]

    def _check(self, field: str, value: int, least: int, most: int) -> None:
        if not least <= value <= most:
            raise self._wrong(field, f"({value}) must be from {least} to {most}")

    def _wrong(self, field: str, description: str) -> RequestRefusedError:
        return invalid([FieldFault(f"{self._field}.{field}", description)])


def _affected(task: RunningTask, new_places: Mapping[tuple[str, TaskId], str]) -> AffectedTask:
    return AffectedTask(
        job_id=task.job_id,
        task_group=task.task.group,
        task_index=task.task.index,
        node_id=task.node_id,
        to_node_id=new_places.get((task.job_id, task.task), ""),
    )
