"""What part of the rent public vouchers pay: a policy in words of its own, and the decision it comes to.

The policy says; this module only asks, in the order in which an official would: is a policy in force, is the
enterprise eligible, is the work, is the operator independent, has the contract had its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from mumian_orchestrator.domain.fields import FieldError, Fields
from mumian_orchestrator.domain.money.document import cny, covers, day, identifier, permille, texts
from mumian_orchestrator.domain.money.registry import Enterprise, Registry

COMPUTE = "compute"
SERVICES = (COMPUTE, "storage", "network", "security")


@dataclass(frozen=True, slots=True)
class Rule:
    """A share of the rent, and for whom; of all that fit, the largest share counts."""

    permille: int
    sectors: frozenset[str]  # each of these: empty for any
    labels: frozenset[str]  # the enterprise needs all of them
    accelerators: frozenset[str]
    enterprise_microcny_per_year: int | None  # instead of the policy's


@dataclass(frozen=True, slots=True)
class Policy:
    """One programme of vouchers."""

    id: str
    first_day: date
    last_day: date
    pool_microcny_per_year: int
    enterprise_microcny_per_year: int
    sectors: frozenset[str]
    districts: tuple[str, ...]  # where the enterprise is
    sites_in: tuple[str, ...]  # where the work is done
    services: frozenset[str]
    accelerators_only: bool  # AI compute: work on CPUs alone gets nothing
    contract_required: bool
    control_from_permille: int  # whoever owns so much of a company controls it
    pue_kept_only: bool  # no new voucher where the PUE ceiling is broken
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What a voucher is asked for."""

    day: date
    tenant_id: str
    operator_id: str
    jurisdiction: str  # of the site
    accelerator_model: str = ""  # empty: none
    contract: str = ""
    service: str = COMPUTE
    keeps_pue: bool = True
    claimed_by: str = ""  # the policy that this contract has had vouchers of, if any


@dataclass(frozen=True, slots=True)
class Terms:
    """What vouchers pay, and why, or why not."""

    permille: int
    reason: str
    policy: Policy | None = None
    enterprise: Enterprise | None = None
    enterprise_microcny_per_year: int = 0


def decide(policies: Sequence[Policy], registry: Registry, work: Work) -> Terms:
    """The best terms of all policies in force; refusals of the first one, if none pays."""
    answers = [_ask(policy, registry, work) for policy in policies if _is_in_force(policy, work.day)]
    if not answers:
        return Terms(0, "")
    return max(answers, key=lambda terms: terms.permille)


def _is_in_force(policy: Policy, on: date) -> bool:
    return policy.first_day <= on <= policy.last_day


def _ask(policy: Policy, registry: Registry, work: Work) -> Terms:
    enterprise = registry.by_tenant.get(work.tenant_id)
    if enterprise is None:
        return Terms(0, f"{policy.id}: tenant {work.tenant_id} is in no enterprise of the registry")
    refusal = _refusal(policy, registry, enterprise, work)
    if refusal:
        return Terms(0, f"{policy.id}: {refusal}")
    fitting = [rule for rule in policy.rules if _fits(rule, enterprise, work)]
    if not fitting:
        return Terms(0, f"{policy.id}: no share is set for such an enterprise and accelerator")
    rule = max(fitting, key=lambda rule: rule.permille)
    limit = rule.enterprise_microcny_per_year
    return Terms(
        rule.permille,
        f"{policy.id}: {rule.permille / 10:g} % of the rent",
        policy,
        enterprise,
        policy.enterprise_microcny_per_year if limit is None else limit,
    )


def _refusal(policy: Policy, registry: Registry, enterprise: Enterprise, work: Work) -> str:
    """Why not; empty: nothing speaks against it."""
    if policy.sectors and enterprise.sector not in policy.sectors:
        return f"sector {enterprise.sector or '(none)'} of {enterprise.id} is not eligible"
    if policy.districts and not any(covers(d, enterprise.district) for d in policy.districts):
        return f"{enterprise.id} is in {enterprise.district or 'no district'}, not in the policy's"
    if policy.sites_in and not any(covers(region, work.jurisdiction) for region in policy.sites_in):
        return f"the site is in {work.jurisdiction or 'no jurisdiction'}, not in the policy's"
    if work.service not in policy.services:
        return f"{work.service} is billed without vouchers"
    if policy.accelerators_only and not work.accelerator_model:
        return "only AI compute is paid for, and it has no accelerator"
    if work.operator_id not in registry.operators:
        return f"operator {work.operator_id or '(none)'} is not in the registry"
    owner = registry.common_owner(enterprise.id, work.operator_id, policy.control_from_permille)
    if owner is not None:
        return f"operator {work.operator_id} and {enterprise.id} are affiliated through {owner}"
    if policy.contract_required and not work.contract:
        return "the job names no contract"
    if work.contract and work.contract in enterprise.subsidised_contracts:
        return f"other public money pays for contract {work.contract}"
    if work.claimed_by and work.claimed_by != policy.id:
        return f"its contract has had vouchers of {work.claimed_by}"
    if policy.pue_kept_only and not work.keeps_pue:
        return "the site breaks its PUE ceiling"
    return ""


def _fits(rule: Rule, enterprise: Enterprise, work: Work) -> bool:
    return (
        (not rule.sectors or enterprise.sector in rule.sectors)
        and rule.labels <= enterprise.labels
        and (not rule.accelerators or work.accelerator_model in rule.accelerators)
    )


def read_policies(fields: Fields) -> tuple[Policy, ...]:
    """From the fields of a document of kind `vouchers`.

    Raises:
        FieldError: something in it is wrong.
    """
    policies = fields.items("policies", _policy)
    fields.end()
    ids = [policy.id for policy in policies]
    if len(set(ids)) < len(ids):
        raise FieldError("policies: an id is there twice; each needs one of its own")
    return policies


def _policy(fields: Fields) -> Policy:
    services = frozenset(texts(fields, "services") or (COMPUTE,))
    if unknown := services - set(SERVICES):
        raise FieldError(f"{fields.at('services')} ({min(unknown)}) is unknown; use {', '.join(SERVICES)}")
    made = Policy(
        id=identifier(fields, "id"),
        first_day=day(fields, "from"),
        last_day=day(fields, "until"),
        pool_microcny_per_year=cny(fields, "pool_cny_per_year"),
        enterprise_microcny_per_year=cny(fields, "enterprise_cny_per_year"),
        sectors=frozenset(texts(fields, "sectors")),
        districts=texts(fields, "districts"),
        sites_in=texts(fields, "sites_in"),
        services=services,
        accelerators_only=truth(fields, "accelerators_only", default=True),
        contract_required=truth(fields, "contract_required", default=False),
        control_from_permille=permille(fields, "control_from_percent", 1),
        pue_kept_only=truth(fields, "pue_kept_only", default=False),
        rules=fields.items("shares", _rule),
    )
    if made.last_day < made.first_day:
        raise FieldError(f"{fields.at('until')} ({made.last_day}) is before {fields.at('from')}")
    return made


def _rule(fields: Fields) -> Rule:
    return Rule(
        permille=permille(fields, "percent"),
        sectors=frozenset(texts(fields, "sectors")),
        labels=frozenset(texts(fields, "labels")),
        accelerators=frozenset(texts(fields, "accelerators")),
        enterprise_microcny_per_year=cny(fields, "enterprise_cny_per_year")
        if fields.has("enterprise_cny_per_year")
        else None,
    )


def truth(fields: Fields, name: str, *, default: bool) -> bool:
    """Yes or no."""
    value = fields.take(name, default) if fields.has(name) else default
    if not isinstance(value, bool):
        raise FieldError(f"{fields.at(name)} ({value!r}) must be true or false")
    return value
