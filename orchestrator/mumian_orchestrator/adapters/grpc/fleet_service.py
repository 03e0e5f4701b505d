"""The fleet, for everybody to see, and the brake on replacements, for operators to release."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice

from mumian.api.v1 import error_pb2
from mumian.api.v1 import fleet_service_pb2 as pb
from mumian.api.v1.fleet_service_pb2_grpc import FleetServiceServicer

from mumian_orchestrator.adapters.grpc.errors import Context, unary
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.identity import current_caller
from mumian_orchestrator.domain.pages import key_of, page, size_of, token_of
from mumian_orchestrator.domain.permissions import Permission, holds
from mumian_orchestrator.services.disconnections import Disconnections
from mumian_orchestrator.services.fleet import Fleet


class FleetService(FleetServiceServicer):
    """`FleetService` over the fleet and its silent sites."""

    def __init__(self, fleet: Fleet, disconnections: Disconnections) -> None:
        self._fleet, self._disconnections = fleet, disconnections

    @unary
    async def ListSites(self, request: pb.ListSitesRequest, context: Context) -> pb.ListSitesResponse:
        sites, token = page(
            self._fleet.all_sites(), lambda site: site.id, request.page_size, request.page_token
        )
        brake = self._disconnections.brake()
        response = pb.ListSitesResponse(next_page_token=token, disconnect_brake=brake)
        for site in sites:
            if (shown := self._fleet.site(site.id, _confined_to())) is not None:
                response.sites.append(shown)
            await asyncio.sleep(0)  # others need not wait until all are added up
        return response

    @unary
    async def GetSite(self, request: pb.GetSiteRequest, context: Context) -> pb.GetSiteResponse:
        return pb.GetSiteResponse(site=self._fleet.site(self._known(request.site_id), _confined_to()))

    @unary
    async def ReleaseDisconnectBrake(
        self, request: pb.ReleaseDisconnectBrakeRequest, context: Context
    ) -> pb.ReleaseDisconnectBrakeResponse:
        return pb.ReleaseDisconnectBrakeResponse(disconnect_brake=self._disconnections.release_brake())

    @unary
    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        nodes = self._fleet.all_nodes(self._known(request.site_id) if request.site_id else "")
        some, token = page(nodes, lambda node: node.id, request.page_size, request.page_token)
        return pb.ListNodesResponse(
            nodes=self._fleet.with_promises(some, _confined_to()), next_page_token=token
        )

    @unary
    async def ListZones(self, request: pb.ListZonesRequest, context: Context) -> pb.ListZonesResponse:
        zones = sorted(self._fleet.zones.values(), key=lambda zone: zone.id)
        shown, token = page(zones, lambda zone: zone.id, request.page_size, request.page_token)
        return pb.ListZonesResponse(zones=shown, next_page_token=token)

    @unary
    async def ListLinks(self, request: pb.ListLinksRequest, context: Context) -> pb.ListLinksResponse:
        if request.from_id not in ("", *self._fleet.zones):
            self._known(request.from_id, "zone or site", self._fleet.zones)
        size, (from_id, _, to_site_id) = size_of(request.page_size), key_of(request.page_token).partition("/")
        found = list(islice(self._fleet.all_links(request.from_id, (from_id, to_site_id)), size + 1))
        shown = self._fleet.with_reserved(found[:size], _confined_to())
        more = len(found) > size
        token = token_of(f"{shown[-1].from_id}/{shown[-1].to_site_id}") if more else ""
        return pb.ListLinksResponse(links=shown, next_page_token=token)

    def _known(self, site_id: str, wanted: str = "site", others: Iterable[str] = ()) -> str:
        if self._fleet.facts(site_id) is None:
            known = ", ".join([*others, *(site.id for site in self._fleet.all_sites())]) or "none yet"
            reason = error_pb2.ERROR_REASON_SITE_NOT_FOUND
            message = f"{wanted} ({site_id}) does not exist; known: {known}"
            raise RequestRefusedError(reason, message)
        return site_id


def _confined_to() -> str | None:
    """The tenant whose use is all that the caller may see; None: that of all."""
    caller = current_caller()
    return None if holds(caller, Permission.FLEET_USAGE) else caller.tenant_id
