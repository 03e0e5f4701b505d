"""The policy language of vouchers: Guangzhou's example, two other cities' rules, and what abuse tries."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mumian_orchestrator.domain.fields import FieldError
from mumian_orchestrator.domain.money.document import kind_of, read
from mumian_orchestrator.domain.money.registry import Registry, read_registry
from mumian_orchestrator.domain.money.vouchers import Policy, Terms, Work, decide, read_policies

EXAMPLES = Path("examples/money")


def policies_of(text: str) -> tuple[Policy, ...]:
    fields = read(text)
    assert kind_of(fields) == "vouchers"
    return read_policies(fields)


def registry_of(text: str) -> Registry:
    fields = read(text)
    assert kind_of(fields) == "registry"
    return read_registry(fields)


GUANGZHOU = policies_of((EXAMPLES / "guangzhou-vouchers.yaml").read_text())
REGISTRY = registry_of((EXAMPLES / "registry.yaml").read_text())
WORK = Work(date(2026, 6, 1), "acme", "pearl-river-compute", "CN-GD-GZ", "H100")


def answer(**changes: object) -> Terms:
    return decide(GUANGZHOU, REGISTRY, replace(WORK, **changes))  # type: ignore[arg-type]


def test_guangzhou_pays_a_share_of_the_rent_of_ai_compute() -> None:
    terms = answer()
    assert (terms.permille, terms.enterprise_microcny_per_year) == (500, 3 * 10**12)
    assert terms.policy is not None and terms.policy.pool_microcny_per_year == 10**14
    assert answer(tenant_id="globex-lab").permille == 300


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tenant_id": "nobody"}, "in no enterprise"),
        ({"accelerator_model": ""}, "only AI compute"),
        ({"service": "storage"}, "storage is billed without"),
        ({"service": "network"}, "network is billed without"),
        ({"service": "security"}, "security is billed without"),
        ({"operator_id": "unheard-of"}, "not in the registry"),
        ({"operator_id": "acme-cloud"}, "affiliated through acme-holding"),
        ({"keeps_pue": False}, "breaks its PUE ceiling"),
        ({"claimed_by": "another-city"}, "has had vouchers of another-city"),
    ],
)
def test_what_guangzhou_does_not_pay_for_and_why(changes: dict[str, object], reason: str) -> None:
    terms = answer(**changes)
    assert terms.permille == 0
    assert reason in terms.reason


def test_no_policy_in_force_pays_nothing_and_says_nothing() -> None:
    assert answer(day=date(2025, 12, 31)) == answer(day=date(2027, 1, 1)) == Terms(0, "")


HANGZHOU = policies_of("""
# CNY 250 million a year; 30 % of the rent of domestic accelerators, 20 % of others; CNY 8 million an
# enterprise a year, more for enterprises with a registered base model.
kind: vouchers
policies:
  - id: hangzhou-2024
    from: 2024-07-23
    until: 2027-12-31
    pool_cny_per_year: 250000000
    enterprise_cny_per_year: 8000000
    districts: [CN-ZJ-HZ]
    shares:
      - percent: 20
      - percent: 30
        accelerators: [Ascend-910B]
      - percent: 30
        labels: [base-model]
        enterprise_cny_per_year: 20000000
""")
LANGFANG = policies_of("""
# CNY 10 million a year; 50 % of what compute costs, 60 % for those who lead national projects, the higher
# of the two; CNY 1 million a unit a year.
kind: vouchers
policies:
  - id: langfang-2023
    from: 2023-02-01
    until: 2026-12-31
    pool_cny_per_year: 10000000
    enterprise_cny_per_year: 1000000
    districts: [CN-HE-LF]
    sites_in: [CN-HE-LF]
    services: [compute, storage]
    accelerators_only: false
    shares:
      - percent: 50
      - percent: 60
        labels: [national-project]
""")
ELSEWHERE = registry_of("""
kind: registry
enterprises:
  - {id: plain, district: CN-ZJ-HZ-XH}
  - {id: modeller, district: CN-ZJ-HZ-XH, labels: [base-model]}
  - {id: leader, district: CN-HE-LF, labels: [national-project], subsidised_contracts: [C-1]}
operators: [{id: op}]
""")


def test_hangzhous_public_rules_can_be_written() -> None:
    def permille(tenant_id: str, model: str) -> tuple[int, int]:
        terms = decide(HANGZHOU, ELSEWHERE, Work(date(2026, 1, 1), tenant_id, "op", "CN-ZJ-HZ", model))
        return terms.permille, terms.enterprise_microcny_per_year

    assert permille("plain", "H20") == (200, 8 * 10**12)
    assert permille("plain", "Ascend-910B") == (300, 8 * 10**12)
    assert permille("modeller", "H20") == (300, 20 * 10**12)
    assert permille("leader", "H20") == (0, 0)


def test_langfangs_public_rules_can_be_written() -> None:
    work = Work(date(2026, 1, 1), "leader", "op", "CN-HE-LF", service="storage", contract="C-2")
    assert decide(LANGFANG, ELSEWHERE, work).permille == 600
    assert decide(LANGFANG, ELSEWHERE, replace(work, jurisdiction="CN-BJ")).permille == 0
    twice = decide(LANGFANG, ELSEWHERE, replace(work, contract="C-1"))
    assert (twice.permille, "other public money" in twice.reason) == (0, True)


COMPANIES = ["e", "o", "a", "b", "c", "d"]
SHARES = st.dictionaries(
    st.sampled_from(COMPANIES),
    st.dictionaries(st.sampled_from(COMPANIES), st.integers(1, 1000), max_size=3),
    max_size=6,
)


@given(SHARES, st.integers(1, 1000))
def test_affiliation_is_found_over_any_chain_and_in_circles(
    owners: dict[str, dict[str, int]], from_permille: int
) -> None:
    reach = {company: {company} for company in COMPANIES}
    for _ in COMPANIES:  # by brute force: as many steps as there are companies
        for company, found in reach.items():
            for each in list(found):
                found |= {o for o, share in owners.get(each, {}).items() if share >= from_permille}
            reach[company] = found
    common = Registry(owners=owners).common_owner("e", "o", from_permille)
    assert (common is not None) == bool(reach["e"] & reach["o"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "no YAML"),
        ("kind: voucher\npolicies: []", "did you mean vouchers?"),
        ("a: &a [1]\nkind: *a", "aliases"),
        ("kind: vouchers\npolicies: []", "policies must be a list of at least 1"),
        ("x" * 300_000, "at most 262144"),
    ],
)
def test_a_document_that_cannot_be_used_says_why(text: str, complaint: str) -> None:
    with pytest.raises(FieldError, match=complaint):
        fields = read(text)
        kind_of(fields)
        read_policies(fields)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("pool_cny_per_year: -1", "must be an amount in CNY"),
        ("pool_cny_per_year: 0.0000001", "must be an amount in CNY"),
        ("pool_cny_per_year: .inf", "must be an amount in CNY"),
        ("from: soon", "must be a date"),
        ("until: 2025-01-01", "is before"),
        ("services: [coffee]", "coffee"),
        ("accelerators_only: perhaps", "true or false"),
        ("shares: [{percent: 101}]", "0 to 100 percent"),
        ("shares: [{percent: 30.55}]", "one decimal"),
        ("sectros: [ai]", "did you mean"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(line: str, complaint: str) -> None:
    given = {
        "id": "p",
        "from": "2026-01-01",
        "until": "2026-12-31",
        "pool_cny_per_year": "1",
        "enterprise_cny_per_year": "1",
        "shares": "[{percent: 30}]",
    }
    name, _, value = line.partition(": ")
    given[name] = value
    text = "kind: vouchers\npolicies:\n  - " + "\n    ".join(
        f"{key}: {value}" for key, value in given.items()
    )
    with pytest.raises(FieldError, match=complaint):
        policies_of(text)
