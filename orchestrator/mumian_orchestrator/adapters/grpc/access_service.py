"""The door to who may come in: tokens, sites, and the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator

from mumian.api.v1 import access_service_pb2 as pb
from mumian.api.v1.access_pb2 import ApiToken, Identity
from mumian.api.v1.access_service_pb2_grpc import AccessServiceServicer

from mumian_orchestrator.adapters.grpc.errors import Context, stream, unary
from mumian_orchestrator.domain.identity import current_caller
from mumian_orchestrator.domain.pages import page
from mumian_orchestrator.services.access.api_tokens import ApiTokens
from mumian_orchestrator.services.access.audit_log import AuditLog
from mumian_orchestrator.services.access.site_enrolment import SiteEnrolment


class AccessService(AccessServiceServicer):
    """`AccessService` over the tokens, the sites and the audit log."""

    def __init__(self, tokens: ApiTokens, sites: SiteEnrolment, audit: AuditLog) -> None:
        self._tokens, self._sites, self._audit = tokens, sites, audit

    @unary
    async def GetIdentity(self, request: pb.GetIdentityRequest, context: Context) -> pb.GetIdentityResponse:
        caller = current_caller()
        identity = Identity(
            name=caller.name,
            roles=sorted(role.wire for role in caller.roles),
            tenant_id=caller.tenant_id,
            operator_id=caller.operator_id,
        )
        if caller.expire_unix_s is not None:
            identity.expire_time.FromSeconds(int(caller.expire_unix_s))
        return pb.GetIdentityResponse(identity=identity)

    @unary
    async def CreateApiToken(
        self, request: pb.CreateApiTokenRequest, context: Context
    ) -> pb.CreateApiTokenResponse:
        wanted = ApiToken(
            title=request.title,
            role=request.role,
            tenant_id=request.tenant_id,
            operator_id=request.operator_id,
        )
        token, secret = await self._tokens.create(current_caller(), wanted, request.lifetime_s)
        return pb.CreateApiTokenResponse(token=token, secret=secret)

    @unary
    async def ListApiTokens(
        self, request: pb.ListApiTokensRequest, context: Context
    ) -> pb.ListApiTokensResponse:
        tokens = self._tokens.manageable_by(current_caller())
        shown, token = page(tokens, lambda each: each.id, request.page_size, request.page_token)
        return pb.ListApiTokensResponse(tokens=shown, next_page_token=token)

    @unary
    async def RevokeApiToken(
        self, request: pb.RevokeApiTokenRequest, context: Context
    ) -> pb.RevokeApiTokenResponse:
        return pb.RevokeApiTokenResponse(token=await self._tokens.revoke(current_caller(), request.token_id))

    @unary
    async def CreateSiteToken(
        self, request: pb.CreateSiteTokenRequest, context: Context
    ) -> pb.CreateSiteTokenResponse:
        secret, expire_unix_s = await self._sites.create_token(
            current_caller(), request.site_id, request.operator_id
        )
        response = pb.CreateSiteTokenResponse(secret=secret)
        response.expire_time.FromSeconds(expire_unix_s)
        return response

    @unary
    async def ListEnrolledSites(
        self, request: pb.ListEnrolledSitesRequest, context: Context
    ) -> pb.ListEnrolledSitesResponse:
        sites = self._sites.visible_to(current_caller())
        shown, token = page(sites, lambda site: site.site_id, request.page_size, request.page_token)
        return pb.ListEnrolledSitesResponse(sites=shown, next_page_token=token)

    @unary
    async def RevokeSite(self, request: pb.RevokeSiteRequest, context: Context) -> pb.RevokeSiteResponse:
        return pb.RevokeSiteResponse(site=await self._sites.revoke(current_caller(), request.site_id))

    @stream
    async def ReadAuditLog(
        self, request: pb.ReadAuditLogRequest, context: Context
    ) -> AsyncIterator[pb.ReadAuditLogResponse]:
        head = await self._audit.stored_head()
        async for entries in self._audit.stored_entries(head):
            yield pb.ReadAuditLogResponse(entries=entries)
        yield pb.ReadAuditLogResponse(head_number=head.number, head_sha256=head.sha256)
