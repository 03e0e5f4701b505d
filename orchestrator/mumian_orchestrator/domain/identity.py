"""Who calls: a person or a program with roles, the agent of a site, or anybody on this machine."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from mumian.api.v1 import access_pb2, error_pb2

from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.domain.names import is_name

TENANT_DEFAULT = "default"
# What certificates name: SPIFFE ids.
SITE_IDENTITY, CONSOLE_IDENTITY = "spiffe://mumian/site/", "spiffe://mumian/console/"
COORDINATOR_IDENTITY = "spiffe://mumian/coordinator"


class Role(StrEnum):
    """What somebody may do; `permissions` says what that is."""

    PLATFORM_ADMIN = "platform-admin"
    OPERATOR = "operator"
    TENANT_ADMIN = "tenant-admin"
    TENANT_USER = "tenant-user"
    AUDITOR = "auditor"

    @property
    def wire(self) -> access_pb2.Role.ValueType:
        """The same in the API."""
        return access_pb2.Role.Value(f"ROLE_{self.name}")


TENANT_ROLES = frozenset({Role.TENANT_ADMIN, Role.TENANT_USER})


def role_of(wire: access_pb2.Role.ValueType) -> Role | None:
    """The role of a value of the API; None for one that is unspecified or unknown."""
    return next((role for role in Role if role.wire == wire), None)


@dataclass(frozen=True, slots=True)
class Caller:
    """An identity that has been proved. At most one of tenant, operator and site is set."""

    name: str  # for the audit log
    roles: frozenset[Role] = frozenset()
    tenant_id: str = ""
    operator_id: str = ""
    site_id: str = ""
    credential_id: str = ""  # what is revoked to keep it out
    expire_unix_s: float | None = None
    is_local: bool = False  # access control is off: whoever reaches this machine may do anything


# Access control is on only where it is configured; else nobody but this machine can reach the coordinator.
LOCAL = Caller("anybody on this machine", frozenset(Role), is_local=True)
NOBODY = Caller("nobody")

_CALLER: ContextVar[Caller] = ContextVar("caller", default=LOCAL)
_ORIGIN: ContextVar[str] = ContextVar("origin", default="")


def current_caller() -> Caller:
    """Who has made the call that is being answered."""
    return _CALLER.get()


def current_origin() -> str:
    """The network address that the call comes from, for the audit log."""
    return _ORIGIN.get()


def answer_for(caller: Caller, origin: str) -> None:
    """From now on, what this task does is done for that caller, at that address."""
    _CALLER.set(caller)
    _ORIGIN.set(origin)


def acting_tenant(caller: Caller, named: str) -> str:
    """The tenant that a call is about: the caller's own, or the one named by a caller that has none.

    Raises:
        RequestRefusedError: PERMISSION_DENIED, the caller is of another tenant; INVALID_FIELD.
    """
    if caller.tenant_id:
        if named not in ("", caller.tenant_id):
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_PERMISSION_DENIED,
                f"the credential is of tenant {caller.tenant_id}, and the call names another; leave it out",
            )
        return caller.tenant_id
    if not named and not caller.is_local:
        raise invalid([FieldFault("mumian-tenant", "is missing; name the tenant that this is about")])
    tenant_id = named or TENANT_DEFAULT
    if not is_name(tenant_id):
        raise invalid(
            [FieldFault("mumian-tenant", f"({tenant_id!r}) is no valid tenant; use a-z, 0-9 and -")]
        )
    return tenant_id
