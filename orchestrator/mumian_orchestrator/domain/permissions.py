"""What each RPC needs, and who has it: one row an RPC. An RPC without a row is refused to everybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mumian_orchestrator.domain.identity import Caller, Role


class Permission(StrEnum):
    """Something that one may do."""

    PUBLIC = "public"  # anybody; the request itself may hold a proof
    SITE = "site"  # an agent, for the site of its certificate
    PERSON = "person"  # whoever has proved to be somebody, but agents
    JOBS_READ = "jobs.read"
    JOBS_WRITE = "jobs.write"
    LOGS_READ = "logs.read"
    FLEET_READ = "fleet.read"
    FLEET_USAGE = "fleet.usage"  # what everybody together uses, not only the caller's tenant
    FLEET_CHANGE = "fleet.change"
    FLEET_PLAN = "fleet.plan"
    PLATFORM_DIAGNOSE = "platform.diagnose"
    TOKENS_MANAGE = "tokens.manage"
    SECRETS_READ = "secrets.read"  # their names; nobody reads a value
    SECRETS_MANAGE = "secrets.manage"
    SITES_ENROL = "sites.enrol"
    SITES_READ = "sites.read"
    AUDIT_READ = "audit.read"
    MONEY_READ = "money.read"  # of one tenant
    MONEY_MANAGE = "money.manage"
    PRICES_READ = "prices.read"
    PRICES_PUBLISH = "prices.publish"
    ACCOUNTS_READ = "accounts.read"  # of operators
    CITY_READ = "city.read"


_EVERYBODY = frozenset(Role)
_TENANTS = frozenset({Role.TENANT_ADMIN, Role.TENANT_USER})
_PLATFORM = frozenset({Role.PLATFORM_ADMIN})

# Tenants' roles are confined to their own tenant, operators' to their own sites.
ROLES: Mapping[Permission, frozenset[Role]] = {
    Permission.PERSON: _EVERYBODY,
    Permission.JOBS_READ: _TENANTS | _PLATFORM | {Role.AUDITOR},
    Permission.JOBS_WRITE: _TENANTS | _PLATFORM,
    Permission.LOGS_READ: _TENANTS,  # what tasks print is nobody else's business
    Permission.FLEET_READ: _EVERYBODY,
    Permission.FLEET_USAGE: _PLATFORM | {Role.OPERATOR, Role.AUDITOR},
    Permission.FLEET_CHANGE: _PLATFORM,
    Permission.FLEET_PLAN: _PLATFORM,  # it names all tenants' jobs
    Permission.PLATFORM_DIAGNOSE: _PLATFORM | {Role.OPERATOR, Role.AUDITOR},
    Permission.TOKENS_MANAGE: _PLATFORM | {Role.TENANT_ADMIN},
    Permission.SECRETS_READ: _TENANTS,
    Permission.SECRETS_MANAGE: frozenset({Role.TENANT_ADMIN}),
    Permission.SITES_ENROL: _PLATFORM | {Role.OPERATOR},
    Permission.SITES_READ: _PLATFORM | {Role.OPERATOR, Role.AUDITOR},
    Permission.AUDIT_READ: _PLATFORM | {Role.AUDITOR},
    Permission.MONEY_READ: _TENANTS | _PLATFORM | {Role.AUDITOR},
    Permission.MONEY_MANAGE: _PLATFORM,
    Permission.PRICES_READ: _PLATFORM | {Role.OPERATOR, Role.AUDITOR},
    Permission.PRICES_PUBLISH: _PLATFORM | {Role.OPERATOR},
    Permission.ACCOUNTS_READ: _PLATFORM | {Role.OPERATOR, Role.AUDITOR},
    Permission.CITY_READ: _PLATFORM | {Role.AUDITOR},
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What an RPC needs. What is done by one that changes something goes to the audit log."""

    permission: Permission
    is_change: bool = False
    in_parts: bool = False  # it is stored in several commits, each with an entry that names all of it


def reads(permission: Permission) -> Rule:
    """An RPC that changes nothing."""
    return Rule(permission)


def changes(permission: Permission, *, in_parts: bool = False) -> Rule:
    """An RPC by which somebody changes something."""
    return Rule(permission, is_change=True, in_parts=in_parts)


RULES: Mapping[str, Mapping[str, Rule]] = {
    "mumian.api.v1.JobService": {
        "CreateJob": changes(Permission.JOBS_WRITE),
        "CreateJobs": changes(Permission.JOBS_WRITE, in_parts=True),
        "GetJob": reads(Permission.JOBS_READ),
        "ListJobs": reads(Permission.JOBS_READ),
        "WatchJob": reads(Permission.JOBS_READ),
        "UpdateJob": changes(Permission.JOBS_WRITE),
        "CancelJob": changes(Permission.JOBS_WRITE),
        "ReadLogs": reads(Permission.LOGS_READ),
        "ListEndpoints": reads(Permission.JOBS_READ),
        # Bytes by their hash, a piece at a time; the change is the job that wants them.
        "UploadBundle": reads(Permission.JOBS_WRITE),
        "ReadOutput": reads(Permission.LOGS_READ),
        "PlanJob": reads(Permission.JOBS_READ),
        "ExplainJob": reads(Permission.JOBS_READ),
        "ListJobEvents": reads(Permission.JOBS_READ),
        "GetShare": reads(Permission.JOBS_READ),
    },
    "mumian.api.v1.FleetService": {
        "ListSites": reads(Permission.FLEET_READ),
        "GetSite": reads(Permission.FLEET_READ),
        "ListNodes": reads(Permission.FLEET_READ),
        "ListZones": reads(Permission.FLEET_READ),
        "ListLinks": reads(Permission.FLEET_READ),
        "ReleaseDisconnectBrake": changes(Permission.FLEET_CHANGE),
    },
    "mumian.api.v1.PlanningService": {
        "OptimizeFleet": changes(Permission.FLEET_CHANGE),
        "WhatIf": reads(Permission.FLEET_PLAN),
    },
    "mumian.api.v1.OpsService": {
        "Diagnose": reads(Permission.PLATFORM_DIAGNOSE),
    },
    "mumian.api.v1.MoneyService": {
        "SetBudget": changes(Permission.MONEY_MANAGE),
        "RemoveBudget": changes(Permission.MONEY_MANAGE),
        "GetBudget": reads(Permission.MONEY_READ),
        "ApplyMoneyDocument": changes(Permission.PRICES_PUBLISH),
        "ListMoneyDocuments": reads(Permission.PRICES_READ),
        "GetStatement": reads(Permission.MONEY_READ),
        "GetOperatorStatement": reads(Permission.ACCOUNTS_READ),
        "RefundAllocation": changes(Permission.MONEY_MANAGE),
        "ListVoucherFunds": reads(Permission.CITY_READ),
        "GetCityReport": reads(Permission.CITY_READ),
    },
    "mumian.api.v1.AccessService": {
        "GetIdentity": reads(Permission.PERSON),
        "CreateApiToken": changes(Permission.TOKENS_MANAGE),
        "ListApiTokens": reads(Permission.TOKENS_MANAGE),
        "RevokeApiToken": changes(Permission.TOKENS_MANAGE),
        "CreateSiteToken": changes(Permission.SITES_ENROL),
        "ListEnrolledSites": reads(Permission.SITES_READ),
        "RevokeSite": changes(Permission.SITES_ENROL),
        "ReadAuditLog": reads(Permission.AUDIT_READ),
    },
    "mumian.api.v1.SecretService": {
        "PutSecret": changes(Permission.SECRETS_MANAGE),
        "ListSecrets": reads(Permission.SECRETS_READ),
        "DeleteSecret": changes(Permission.SECRETS_MANAGE),
    },
    "mumian.agent.v1.EnrolmentService": {
        "Join": reads(Permission.PUBLIC),  # its token decides; the service keeps the audit log itself
        "RenewCertificate": reads(Permission.PUBLIC),  # of use only to who has the key
    },
    "mumian.agent.v1.AgentService": {
        "Connect": reads(Permission.SITE),
        "ReadBundle": reads(Permission.SITE),
        "CheckSite": reads(Permission.SITE),
    },
    "grpc.health.v1.Health": {
        "Check": reads(Permission.PUBLIC),  # load balancers have no credential, and learn nothing of anybody
        "Watch": reads(Permission.PUBLIC),
        "List": reads(Permission.PUBLIC),
    },
}


def rule_of(path: str) -> Rule | None:
    """The rule of an RPC by its path ("/package.Service/Method"); None: nobody has declared one."""
    service, _, method = path.removeprefix("/").partition("/")
    return RULES.get(service, {}).get(method)


def holds(caller: Caller, permission: Permission) -> bool:
    """Whether a caller has a permission. A role is confined to its tenant or operator by who answers."""
    if permission is Permission.PUBLIC or caller.is_local:
        return True
    if permission is Permission.SITE:
        return bool(caller.site_id)
    return bool(caller.roles & ROLES[permission])
