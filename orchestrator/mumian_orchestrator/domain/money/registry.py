"""Who is who: the tenants' enterprises, the operators, and who owns them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mumian_orchestrator.domain.fields import FieldError, Fields
from mumian_orchestrator.domain.money.document import identifier, permille, texts


@dataclass(frozen=True, slots=True)
class Enterprise:
    """Who stands behind tenants."""

    id: str
    sector: str = ""
    district: str = ""  # as a jurisdiction: "CN-GD-GZ-TH"
    labels: frozenset[str] = frozenset()  # what policies may ask for: "startup", "high-tech"
    subsidised_contracts: frozenset[str] = frozenset()  # that other public money pays for


@dataclass(frozen=True, slots=True)
class Registry:
    """As the city has published it; an empty one knows nobody."""

    by_tenant: Mapping[str, Enterprise] = field(default_factory=dict)
    operators: frozenset[str] = frozenset()
    # By whom a company is owned, and how much of it, in permille.
    owners: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    tflops: Mapping[str, int] = field(default_factory=dict)  # of accelerator models, dense FP16

    def common_owner(self, one: str, other: str, from_permille: int) -> str | None:
        """Who controls both companies, through however many others; a company controls itself.

        Args:
            from_permille: a share as large as this is control.
        """
        shared = self._controllers(one, from_permille) & self._controllers(other, from_permille)
        return min(shared, default=None)

    def _controllers(self, company: str, from_permille: int) -> set[str]:
        found, waiting = {company}, [company]
        while waiting:
            for owner, share in self.owners.get(waiting.pop(), {}).items():
                if share >= from_permille and owner not in found:
                    found.add(owner)
                    waiting.append(owner)
        return found


def read_registry(fields: Fields) -> Registry:
    """From the fields of a document of kind `registry`.

    Raises:
        FieldError: something in it is wrong.
    """
    owners: dict[str, Mapping[str, int]] = {}
    by_tenant: dict[str, Enterprise] = {}

    def company(each: Fields) -> str:
        id_ = identifier(each, "id")
        if id_ in owners:
            raise FieldError(f"{each.at('id')} ({id_}) is there twice; write each company once")
        shares: dict[str, int] = {}
        owners[id_] = shares

        def owner(one: Fields) -> None:
            shares[identifier(one, "id")] = permille(one, "percent")

        each.items("owners", owner, least=0)
        if sum(shares.values()) > 1000:
            raise FieldError(f"{each.at('owners')} own more than 100 percent of {id_}")
        return id_

    def enterprise(each: Fields) -> None:
        id_ = company(each)
        made = Enterprise(
            id_,
            each.text("sector", ""),
            each.text("district", ""),
            frozenset(texts(each, "labels")),
            frozenset(texts(each, "subsidised_contracts")),
        )
        for tenant_id in texts(each, "tenants") or (id_,):
            if tenant_id in by_tenant:
                raise FieldError(f"{each.at('tenants')}: tenant {tenant_id} belongs to two enterprises")
            by_tenant[tenant_id] = made

    fields.items("enterprises", enterprise, least=0)
    operators = fields.items("operators", company, least=0)
    fields.items("owners", company, least=0)
    tflops: dict[str, int] = {}

    def accelerator(each: Fields) -> None:
        tflops[each.text("model")] = each.whole("tflops_fp16", least=1)

    fields.items("accelerators", accelerator, least=0)
    fields.end()
    return Registry(by_tenant, frozenset(operators), owners, tflops)
