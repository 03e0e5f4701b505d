"""The operators' door: how good the arrangement is, and what a change would do."""

from __future__ import annotations

from mumian.api.v1 import planning_service_pb2 as pb
from mumian.api.v1.planning_service_pb2_grpc import PlanningServiceServicer

from mumian_orchestrator.adapters.grpc.errors import Context, unary
from mumian_orchestrator.domain.arrangement import SearchLimits
from mumian_orchestrator.domain.errors import FieldFault, invalid
from mumian_orchestrator.services.reoptimisation import Reoptimisation
from mumian_orchestrator.services.what_if import WhatIf

TIME_LIMIT_MS_MAX = 60_000


class PlanningService(PlanningServiceServicer):
    """`PlanningService` over re-optimisation and what-if."""

    def __init__(self, reoptimisation: Reoptimisation, what_if: WhatIf, limits: SearchLimits) -> None:
        self._reoptimisation, self._what_if, self._limits = reoptimisation, what_if, limits

    @unary
    async def OptimizeFleet(
        self, request: pb.OptimizeFleetRequest, context: Context
    ) -> pb.OptimizeFleetResponse:
        moves_max = request.moves_max if request.HasField("moves_max") else self._limits.moves_max
        limits = SearchLimits(self._time_limit_ms(request.time_limit_ms), moves_max)
        return await self._reoptimisation.optimize(limits, dry_run=request.dry_run)

    @unary
    async def WhatIf(self, request: pb.WhatIfRequest, context: Context) -> pb.WhatIfResponse:
        moves_max = request.moves_max if request.HasField("moves_max") else None
        limits = SearchLimits(self._time_limit_ms(request.time_limit_ms), moves_max)
        return await self._what_if.answer(request.changes, limits)

    def _time_limit_ms(self, asked: int) -> int:
        if asked > TIME_LIMIT_MS_MAX:
            raise invalid([FieldFault("time_limit_ms", f"({asked}) must be at most {TIME_LIMIT_MS_MAX}")])
        return asked or self._limits.time_limit_ms
