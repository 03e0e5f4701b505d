"""What changes that somebody thinks through make of the fleet and of what its jobs ask for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from mumian.api.v1 import error_pb2, fleet_pb2
from mumian.api.v1.fleet_pb2 import Link, Node, Site
from mumian.api.v1.job_pb2 import JobSpec
from mumian.api.v1.planning_pb2 import AddNodes, AddSite, FleetChange, SetLink, SetPrice, SetPue, SetSlo

from mumian_orchestrator.domain.decision import PendingJob
from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.services.fleet import Fleet

NODES_ADDED_MAX = 10_000
PUE_PERMILLE_LEAST = 1000
QUANTITY_MAX = 1 << 40
_PRICES = {
    "cpu": "cpu_core_hour_microcny",
    "memory": "memory_gib_hour_microcny",
    "energy": "energy_kwh_microcny",
    "egress": "egress_gib_microcny",
}


class FleetChanges:
    """What the changes make of the fleet's facts.

    Args:
        jobs: those that run or wait.

    Raises:
        RequestRefusedError: INVALID_FIELD or SITE_NOT_FOUND.
    """

    def __init__(self, fleet: Fleet, jobs: Mapping[str, PendingJob], changes: Sequence[FleetChange]) -> None:
        self._fleet, self._jobs = fleet, jobs
        self.sites: dict[str, Site] = {}
        self.nodes: list[Node] = []
        self.links: dict[tuple[str, str], Link] = {}
        self.specs: dict[str, JobSpec] = {}  # by job: of those that ask for something else
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
            case "add_site":
                self._add_site(change.add_site)
            case "set_slo":
                self._set_slo(change.set_slo)
            case "set_pue":
                self._set_pue(change.set_pue)
            case "set_price":
                self._set_price(change.set_price)
            case "set_link":
                self._set_link(change.set_link)
            case _:
                raise invalid([FieldFault(self._field, "is empty; set one of its fields")])

    def _add_nodes(self, added: AddNodes) -> None:
        known = itertools.chain(self._fleet.nodes(), self.nodes)
        like = next((node for node in known if node.id == added.like_node_id), None)
        if like is None:
            raise self._wrong(
                "add_nodes.like_node_id", f"({added.like_node_id}) is no node; `mumian nodes` lists them"
            )
        self._check("add_nodes.count", added.count, 1, NODES_ADDED_MAX)
        for _ in range(added.count):
            self._add_node(like, like.site_id)

    def _add_node(self, like: Node, site_id: str) -> None:
        node = Node()
        node.CopyFrom(like)
        # No node that an agent reports has such an id.
        node.id = f"{like.id}+{len(self.nodes) + 1}"
        node.site_id, node.health = site_id, fleet_pb2.HEALTH_READY
        self.nodes.append(node)

    def _add_site(self, added: AddSite) -> None:
        like = self._site("add_site.like_site_id", added.like_site_id)
        site_id = added.site_id
        taken = {site.id for site in self._fleet.all_sites()} | self._fleet.zones.keys() | self.sites.keys()
        if not site_id or site_id in taken:
            told = "is there already" if site_id else "is empty"
            raise self._wrong("add_site.site_id", f"({site_id}) {told}; name the new site otherwise")
        self.sites[site_id] = site = Site()
        site.CopyFrom(like)
        site.id, site.health = site_id, fleet_pb2.HEALTH_READY
        for node in self._fleet.nodes(like.id):
            self._add_node(node, site_id)
        for link in self._fleet.links():
            ends = [site_id if end == like.id else end for end in (link.from_id, link.to_site_id)]
            if site_id in ends:
                link.from_id, link.to_site_id = ends
                self.links[link.from_id, link.to_site_id] = link

    def _set_slo(self, slo: SetSlo) -> None:
        job = self._jobs.get(slo.job_id)
        if job is None:
            raise self._wrong(
                "set_slo.job_id", f"({slo.job_id}) is no job that runs or waits; `mumian jobs` lists them"
            )
        self._check("set_slo.budget_us", slo.budget_us, 1, QUANTITY_MAX)
        spec = JobSpec()
        spec.CopyFrom(self.specs.get(job.job_id, job.spec))
        promises = [group.latency_slo for group in spec.task_groups if group.HasField("latency_slo")]
        if not promises:
            raise self._wrong("set_slo.job_id", f"({slo.job_id}) has no latency promise that could change")
        for promise in promises:
            promise.budget_us = slo.budget_us
        self.specs[job.job_id] = spec

    def _set_pue(self, pue: SetPue) -> None:
        site = self._site("set_pue.site_id", pue.site_id)
        self._check("set_pue.average_permille", pue.average_permille, PUE_PERMILLE_LEAST, 10 * 1000)
        marginal = pue.marginal_permille or pue.average_permille
        self._check("set_pue.marginal_permille", marginal, PUE_PERMILLE_LEAST, 10 * 1000)
        site.pue.average_permille, site.pue.marginal_permille = pue.average_permille, marginal

    def _set_price(self, price: SetPrice) -> None:
        site = self._site("set_price.site_id", price.site_id)
        self._check("set_price.microcny", price.microcny, 0, QUANTITY_MAX)
        nodes = [*self._fleet.nodes(site.id), *(node for node in self.nodes if node.site_id == site.id)]
        models = {accelerator.model for node in nodes for accelerator in node.accelerators}
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
