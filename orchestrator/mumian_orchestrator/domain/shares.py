"""What a tenant may hold of the fleet at once, what it is guaranteed, and whose turn it is when not all fits.

Turns go by weighted dominant-resource fairness: the tenant whose largest share of any resource, over its
weight, is smallest goes first (Ghodsi et al., Dominant Resource Fairness, NSDI 2011).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mumian.api.v1.job_pb2 import TaskGroup
from mumian.api.v1.resources_pb2 import Resources

from mumian_orchestrator.domain.job_spec import PRIORITY_MAX

# Shares are counted in so many parts of the fleet: a small task of a large fleet is still not nothing.
PARTS = 10**9
# What a share is of, by the field that counts it.
RESOURCES = {"cpu_milli": "cores", "memory_mib": "memory", "accelerator_milli": "accelerators"}
_UNLIMITED = 2**62


class Amount(NamedTuple):
    """So much of everything."""

    cpu_milli: int = 0
    memory_mib: int = 0
    accelerator_milli: int = 0
    tasks: int = 0

    def plus(self, other: Amount, times: int = 1) -> Amount:
        """Both together, the other so many times (or less by it, where that is negative)."""
        return Amount(
            self.cpu_milli + times * other.cpu_milli,
            self.memory_mib + times * other.memory_mib,
            self.accelerator_milli + times * other.accelerator_milli,
            self.tasks + times * other.tasks,
        )


NOTHING = Amount()
UNLIMITED = Amount(_UNLIMITED, _UNLIMITED, _UNLIMITED, _UNLIMITED)


@dataclass(frozen=True, slots=True)
class TenantShare:
    """The rules for one tenant."""

    weight: int = 1
    guaranteed: Amount = NOTHING  # `tasks` does not count here
    quota: Amount = UNLIMITED
    projects: Mapping[str, Amount] = field(default_factory=dict)  # quotas by project
    priority_max: int = PRIORITY_MAX


@dataclass(frozen=True, slots=True)
class ShareRules:
    """The rules for all; `others` holds for tenants that have none of their own."""

    tenants: Mapping[str, TenantShare] = field(default_factory=dict)
    others: TenantShare = TenantShare()

    def of(self, tenant_id: str) -> TenantShare:
        """The rules for one tenant."""
        return self.tenants.get(tenant_id, self.others)

    @property
    def guarantee_anything(self) -> bool:
        """Whether any tenant is guaranteed more than its turn."""
        return any(any(share.guaranteed) for share in (self.others, *self.tenants.values()))


ALL_ALIKE = ShareRules()


class Quota(NamedTuple):
    """A limit and what is held under it."""

    of: str  # "tenant acme", "project web"
    limit: Amount
    held: Amount

    def room(self, demand: Amount) -> int:
        """How many tasks of this demand still fit."""
        spans = zip(self.limit, self.held, demand, strict=True)
        return max(0, min((limit - held) // asked for limit, held, asked in spans if asked > 0))

    def with_more(self, demand: Amount, times: int) -> Quota:
        """The same with more held."""
        return self._replace(held=self.held.plus(demand, times))

    def excess(self, demand: Amount) -> str:
        """Why one task more does not fit, and with what it would; empty when it does."""
        for name, limit, held, asked in zip(Amount._fields, self.limit, self.held, demand, strict=True):
            if asked and held + asked > limit:
                now, most, needs, over, enough = (
                    in_words(name, amount)
                    for amount in (held, limit, asked, held + asked - limit, held + asked)
                )
                return (
                    f"quota of {self.of}: it holds {now}, may hold {most}, and a task needs {needs}, {over} "
                    f"over; it would fit with a quota of {enough}, or when work of it has ended"
                )
        return ""


def demand_of(group: TaskGroup) -> Amount:
    """Of one task of a group."""
    return amount_of(group.resources)


def amount_of(resources: Resources) -> Amount:
    """Of one task that asks for these resources."""
    return Amount(resources.cpu_milli, resources.memory_mib, resources.accelerators.milli, tasks=1)


def dominant(held: Amount, capacity: Amount) -> tuple[int, str]:
    """The largest share of any resource of the fleet, in PARTS, and of which."""
    shares = [
        (PARTS * mine // all_, name)
        for name, mine, all_ in zip(RESOURCES, held, capacity, strict=False)
        if all_
    ]
    return max(shares, key=lambda share: share[0], default=(0, "cpu_milli"))


def is_below(held: Amount, guaranteed: Amount) -> bool:
    """Whether a tenant holds less than it is guaranteed, of every resource that it is guaranteed any of."""
    spans = [(mine, most) for mine, most in zip(held[:3], guaranteed[:3], strict=True) if most]
    return bool(spans) and all(mine < most for mine, most in spans)


class Cover:
    """What a guarantee covers of the work that it is asked about, the most important first.

    Resources that the guarantee does not name do not count, and it covers nothing that asks for none of those
    that it names.
    """

    def __init__(self, guaranteed: Amount) -> None:
        self._guaranteed, self._held = guaranteed, NOTHING
        self._named = [index for index, most in enumerate(guaranteed[:3]) if most]

    @property
    def is_empty(self) -> bool:
        """Whether it guarantees nothing."""
        return not self._named

    def take(self, demand: Amount) -> bool:
        """Whether it covers that, too; if so, it counts from now on."""
        after = self._held.plus(demand)
        fits = all(after[index] <= self._guaranteed[index] for index in self._named)
        if not fits or not any(demand[index] for index in self._named):
            return False
        self._held = after
        return True

    def take_all(self, demands: Iterable[Amount]) -> bool:
        """The same for several that are nothing one without the other."""
        before = self._held
        is_covered = all(self.take(demand) for demand in demands)
        if not is_covered:
            self._held = before
        return is_covered


def in_words(name: str, amount: int) -> str:
    """An amount of one resource as its user writes it: "8 cores", "1.5 GiB"."""
    if name == "memory_mib":
        return f"{_short(amount / 1024)} GiB"
    noun = {"cpu_milli": "core", "accelerator_milli": "accelerator"}.get(name, "task")
    number = _short(amount if name == "tasks" else amount / 1000)
    return f"{number} {noun}" if number == "1" else f"{number} {noun}s"


def _short(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".")
