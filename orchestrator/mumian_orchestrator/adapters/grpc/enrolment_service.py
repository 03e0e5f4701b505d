"""The agents' way in: a certificate for a one-use token, and a fresh one for the key that has one."""

from __future__ import annotations

from mumian.agent.v1 import enrolment_service_pb2 as pb
from mumian.agent.v1.enrolment_service_pb2_grpc import EnrolmentServiceServicer

from mumian_orchestrator.adapters.grpc.errors import Context, unary
from mumian_orchestrator.domain.identity import current_origin
from mumian_orchestrator.services.access.site_enrolment import SiteEnrolment


class EnrolmentService(EnrolmentServiceServicer):
    """`EnrolmentService` over the sites."""

    def __init__(self, sites: SiteEnrolment) -> None:
        self._sites = sites

    @unary
    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        certificate = await self._sites.join(current_origin(), request.token, request.certificate_request)
        return pb.JoinResponse(certificate=certificate)

    @unary
    async def RenewCertificate(
        self, request: pb.RenewCertificateRequest, context: Context
    ) -> pb.RenewCertificateResponse:
        certificate = await self._sites.renew(current_origin(), request.site_id, request.certificate_request)
        return pb.RenewCertificateResponse(certificate=certificate)
