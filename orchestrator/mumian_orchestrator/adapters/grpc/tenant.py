"""Which tenant a call is about."""

from __future__ import annotations

from mumian_orchestrator.adapters.grpc.errors import Context
from mumian_orchestrator.domain.identity import acting_tenant, current_caller


def tenant_of(context: Context) -> str:
    """The caller's own, or the one that the call names.

    Raises:
        RequestRefusedError: PERMISSION_DENIED or INVALID_FIELD.
    """
    metadata = dict(context.invocation_metadata() or ())
    return acting_tenant(current_caller(), str(metadata.get("mumian-tenant", "")))
