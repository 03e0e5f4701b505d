"""The operators' door."""

from __future__ import annotations

from mumian.api.v1 import ops_service_pb2 as pb
from mumian.api.v1.ops_service_pb2_grpc import OpsServiceServicer

from mumian_orchestrator.adapters.grpc.errors import Context, unary
from mumian_orchestrator.services.diagnosis.diagnosis import Diagnosis


class OpsService(OpsServiceServicer):
    """`OpsService` over the diagnosis."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        self._diagnosis = diagnosis

    @unary
    async def Diagnose(self, request: pb.DiagnoseRequest, context: Context) -> pb.DiagnoseResponse:
        return await self._diagnosis.diagnose()
