"""What an allocation may cost is reserved before it is committed, and renewed before it is used up.

An allocation of a tenant with a budget runs only in time that is paid for: a batch or gang task with a time
limit all of it, everything else in windows. The site itself ends the work at the end of what is paid, so that
nothing runs on uncounted while no coordinator lives to renew it. Without a budget and vouchers it costs two
look-ups in dictionaries.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence

from mumian.api.v1 import job_event_pb2, job_pb2
from mumian.api.v1.fleet_pb2 import Site
from mumian.api.v1.job_pb2 import Allocation, Job, JobSpec, TaskGroup
from mumian.api.v1.money_pb2 import Hold, Shortage
from mumian.storage.v1 import ledger_pb2

from mumian_orchestrator.domain.job_state import is_doomed, is_live, wants_placement
from mumian_orchestrator.domain.money import ledger, vouchers
from mumian_orchestrator.domain.money.holds import FOR_EVER_MS, Amounts, Price, add_hold, is_limited
from mumian_orchestrator.domain.money.ledger import budget_of, pool_of, share_of
from mumian_orchestrator.domain.money.shortage import shortage_of
from mumian_orchestrator.domain.money.vouchers import Terms, Work
from mumian_orchestrator.domain.periods import date_of, month_of, year_of
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import ALLOCATIONS_PER_COMMIT, JobTable
from mumian_orchestrator.services.money.documents import MoneyDocuments
from mumian_orchestrator.services.money.ledger_book import (
    BudgetLimits,
    Draft,
    FundKey,
    LedgerBook,
)
from mumian_orchestrator.services.tasks import TaskSet

# A task is killed at its time limit; it has so long to end.
_STOP_MARGIN_MS = 10_000
# So often it is looked what has used up half of a window: a small part of the window late, at the most.
_LOOKS_PER_WINDOW, _LOOK_EVERY_MIN_S = 1000, 1.0
# Looked at in one go; then the event loop has other things to do.
_ALLOCATIONS_AT_ONCE = 1000
_RESERVE = ledger_pb2.LEDGER_ENTRY_KIND_RESERVE


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """What one allocation would cost for a while, and who would pay."""

    price: Price
    length_ms: int
    amounts: Amounts
    terms: Terms


class Funding:
    """Reserves of budgets and vouchers for allocations, at the price at which they are committed."""

    def __init__(
        self,
        table: JobTable,
        fleet: Fleet,
        sessions: AgentSessions,
        documents: MoneyDocuments,
        book: LedgerBook,
        carbon_kg_microcny: int,
        window_ms: int,
    ) -> None:
        self._table, self._fleet, self._sessions = table, fleet, sessions
        self._documents, self._book = documents, book
        self._carbon_kg_microcny, self._window_ms = carbon_kg_microcny, window_ms
        self._background = TaskSet()

    # At commit.

    def reserve(self, job: Job, allocations: Sequence[Allocation]) -> list[Allocation]:
        """Those of the new allocations that are paid for, with what is kept for them; of a gang all or none.
        What is missing for the first of the others stands in the job's `shortage` then.
        """
        if not self._concerns(job.tenant_id):
            return list(allocations)
        is_gang = job.spec.kind == job_pb2.JOB_KIND_GANG
        funded: list[Allocation] = []
        if is_gang and (missing := self._missing_for(job, allocations)) is not None:
            job.shortage.CopyFrom(missing)
            return []
        for index, allocation in enumerate(allocations):
            estimate = self.estimate(job, allocation)
            missing = self._missing(job.tenant_id, [estimate], len(allocations) - index)
            if missing is not None:
                job.shortage.CopyFrom(missing)
                break
            self._keep(job, allocation, estimate)
            funded.append(allocation)
        return funded

    def can_pay(self, job: Job, allocations: Sequence[Allocation]) -> bool:
        """Whether all of them could be paid for now; what is missing stands in the job's `shortage`."""
        if not self._concerns(job.tenant_id):
            return True
        missing = self._missing_for(job, allocations)
        if missing is not None:
            job.shortage.CopyFrom(missing)
        return missing is None

    def shortage(self, job: Job, estimates: Sequence[Estimate]) -> Shortage | None:
        """What a tenant's budget lacks for all of them together."""
        return self._missing(job.tenant_id, estimates, len(estimates))

    def has_budget(self, tenant_id: str) -> bool:
        """Whether a budget limits the tenant."""
        return self._book.limits(tenant_id) is not None

    def _concerns(self, tenant_id: str) -> bool:
        return bool(self._documents.policies) or self._book.limits(tenant_id) is not None

    def _missing_for(self, job: Job, allocations: Sequence[Allocation]) -> Shortage | None:
        return self._missing(
            job.tenant_id, [self.estimate(job, each) for each in allocations], len(allocations)
        )

    def _missing(self, tenant_id: str, estimates: Sequence[Estimate], waiting: int) -> Shortage | None:
        limits = self._book.limits(tenant_id)
        if limits is None:
            return None
        needed = sum(estimate.amounts.tenant for estimate in estimates)
        month = month_of(self._book.now_ms())
        left = {}
        for period, limit in ((month, limits.month), (year_of(month), limits.year)):
            if limit is not None:
                left[period] = self._book.available((budget_of(tenant_id), period), limit)
        window_ms = max((estimate.length_ms for estimate in estimates), default=0)
        return shortage_of(needed, left, waiting, window_ms)

    def estimate(self, job: Job, allocation: Allocation) -> Estimate:
        """What a new allocation would cost until it ends or has to be renewed, and who would pay."""
        length_ms = self._length_ms(job.spec, allocation.task_group)
        site = self._fleet.facts(allocation.site_id) or Site()
        terms = self._terms(job, allocation, site)
        cost = allocation.cost
        other = cost.egress_microcny_per_hour
        other += self._energy_microcny_per_hour(cost.facility_power_mw, site, length_ms)
        price = Price(cost.rent_microcny_per_hour, other, terms.permille)
        return Estimate(price, length_ms, self._with_vouchers_left(price.over(length_ms), terms), terms)

    def _terms(self, job: Job, allocation: Allocation, site: Site) -> Terms:
        if not self._documents.policies:
            return Terms(0, "")
        work = Work(
            day=date_of(self._book.now_ms()),
            tenant_id=job.tenant_id,
            operator_id=site.operator_id,
            jurisdiction=site.jurisdiction,
            accelerator_model=self._fleet.accelerator_model(allocation),
            contract=job.spec.contract,
            keeps_pue=self._documents.pue.keeps(site),
            claimed_by=self._claimed_by(job),
        )
        return vouchers.decide(self._documents.policies, self._documents.registry, work)

    def _claimed_by(self, job: Job) -> str:
        """The policy that has paid for the job's contract; without a number the job is one of its own."""
        enterprise = self._documents.registry.by_tenant.get(job.tenant_id)
        if job.spec.contract:
            return self._book.claimed_by(enterprise.id, job.spec.contract) if enterprise else ""
        return next((each for a in job.allocations if (each := a.funding.voucher_policy_id)), "")

    def _energy_microcny_per_hour(self, facility_power_mw: int, site: Site, length_ms: int) -> int:
        """Energy and carbon under full load at the dearest hour that the site's forecast knows of."""
        now_ms = self._book.now_ms()
        first_ms = site.forecast.first_hour_unix_s * 1000
        begin = max(0, (now_ms - first_ms) // 3_600_000)
        # It may start later than now, and then runs later: look twice as far.
        hours = site.forecast.hours[begin : begin + 2 * length_ms // 3_600_000 + 2]
        kwh = max([site.prices.energy_kwh_microcny, *(hour.energy_kwh_microcny for hour in hours)])
        carbon_g = max([site.carbon_g_per_kwh, *(hour.carbon_g_per_kwh for hour in hours)])
        per_kwh = kwh + carbon_g * self._carbon_kg_microcny // 1000 + 1
        return -(-facility_power_mw * per_kwh // 10**6)

    def _with_vouchers_left(self, amounts: Amounts, terms: Terms) -> Amounts:
        if terms.policy is None or terms.enterprise is None:
            return amounts._replace(voucher=0)
        left = [self._book.available(key, limit) for key, limit in self._voucher_limits(terms).items()]
        return amounts._replace(voucher=max(0, min(amounts.voucher, *left)))

    def _voucher_limits(self, terms: Terms) -> dict[FundKey, int]:
        assert terms.policy is not None and terms.enterprise is not None
        year = year_of(month_of(self._book.now_ms()))
        return {
            (pool_of(terms.policy.id), year): terms.policy.pool_microcny_per_year,
            (share_of(terms.policy.id, terms.enterprise.id), year): terms.enterprise_microcny_per_year,
        }

    def _length_ms(self, spec: JobSpec, group_name: str) -> int:
        group = next((group for group in spec.task_groups if group.name == group_name), TaskGroup())
        return _whole_run_ms(spec, group) or self._window_ms

    def _keep(self, job: Job, allocation: Allocation, estimate: Estimate) -> None:
        """Reserve it with the allocation's next commit."""
        limits, kept = self._limits(job, allocation), allocation.funding
        if not kept.covered_ms:
            kept.rent_microcny_per_hour, kept.other_microcny_per_hour, kept.voucher_permille = estimate.price
            policy, enterprise = estimate.terms.policy, estimate.terms.enterprise
            if policy is not None and enterprise is not None:
                kept.voucher_policy_id, kept.enterprise_id = policy.id, enterprise.id
                kept.sector, kept.district = enterprise.sector, enterprise.district
        kept.covered_ms += estimate.length_ms
        if limits is not None:
            kept.funded_ms = kept.covered_ms
        month = month_of(self._book.now_ms())
        owner, amounts = budget_of(job.tenant_id), estimate.amounts
        hold = Hold(
            month=month,
            rent_microcny=amounts.rent,
            other_microcny=amounts.other,
            voucher_microcny=amounts.voucher,
            month_budget=limits is not None and limits.month is not None,
            year_budget=limits is not None and limits.year is not None,
        )
        add_hold(kept, hold)
        changes, granted = [], dict[FundKey, int]()
        if limits is not None:
            for period, limit in ((month, limits.month), (year_of(month), limits.year)):
                if limit is not None:
                    changes.append(ledger.reserve(owner, period, amounts.tenant))
                    granted[owner, period] = limit
        if amounts.voucher:
            of_vouchers = self._voucher_limits(estimate.terms)
            if job.spec.contract:
                self._book.claim(kept.enterprise_id, job.spec.contract, kept.voucher_policy_id)
            changes += [ledger.reserve(*key, amounts.voucher) for key in of_vouchers]
            granted |= of_vouchers
        if changes:
            self._book.promise(allocation.id, Draft(_RESERVE, ledger.merged(changes), granted))

    # While it runs.

    async def run(self, wake: Callable[[], None]) -> None:
        """Renew what is running out, and wake what waits for money when a new month has begun."""
        month = month_of(self._book.now_ms())
        while True:
            await asyncio.sleep(max(_LOOK_EVERY_MIN_S, self._window_ms / 1000 / _LOOKS_PER_WINDOW))
            if not self._book.tenants() and not self._documents.policies:
                continue  # nobody has anything to renew
            await self._renew_all()
            if month != month_of(self._book.now_ms()):
                month = month_of(self._book.now_ms())
                wake()

    async def _renew_all(self) -> None:
        """Pay for another window of what has used up half of its last one; let go what nothing limits now."""
        now_ms = self._book.now_ms()
        found: dict[str, tuple[Job, list[Allocation]]] = {}
        for number, (job, allocation) in enumerate(self._table.live_allocations(), 1):
            if allocation.HasField("funding") and (
                self._is_freed(job, allocation) or self._is_running_out(job, allocation, now_ms)
            ):
                found.setdefault(job.id, (job, []))[1].append(allocation)
            if number % _ALLOCATIONS_AT_ONCE == 0:
                await asyncio.sleep(0)
        for job, allocations in found.values():
            if left := [allocation for allocation in allocations if is_live(allocation)]:
                self._renew(job, left)

    def _is_freed(self, job: Job, allocation: Allocation) -> bool:
        """Whether the budget that limited it was removed."""
        return is_limited(allocation.funding) and self._book.limits(job.tenant_id) is None

    def _is_running_out(self, job: Job, allocation: Allocation, now_ms: int) -> bool:
        if allocation.stop_requested or is_doomed(job) or not allocation.HasField("start_time"):
            return False
        group = next(group for group in job.spec.task_groups if group.name == allocation.task_group)
        if _whole_run_ms(job.spec, group) or not self._fleet.is_reachable(allocation.site_id):
            return False
        used_ms = now_ms - allocation.start_time.ToMilliseconds()
        return allocation.funding.covered_ms - used_ms <= self._window_ms // 2

    def _renew(self, job: Job, allocations: Sequence[Allocation]) -> None:
        renewed, missing = [], None
        for allocation in allocations:
            if self._is_freed(job, allocation):
                allocation.funding.funded_ms = FOR_EVER_MS
                renewed.append(allocation)
                continue
            estimate = self._again(job, allocation)
            if self._limits(job, allocation) is not None:
                missing = self._missing(job.tenant_id, [estimate], 1)
                if missing is not None:
                    break
            self._keep(job, allocation, estimate)
            renewed.append(allocation)
        if missing is not None and missing != job.shortage:
            job.shortage.CopyFrom(missing)
            self._table.publish_shortage(job)
        elif missing is None and not wants_placement(job):
            job.ClearField("shortage")
        for start in range(0, len(renewed), ALLOCATIONS_PER_COMMIT):
            part = renewed[start : start + ALLOCATIONS_PER_COMMIT]
            durable = self._table.commit(job, part, job_event_pb2.JOB_EVENT_KIND_FUNDED)
            self._background.start(self._extend(durable, part))

    def _limits(self, job: Job, allocation: Allocation) -> BudgetLimits | None:
        """What limits an allocation: a budget counts for what is committed after it was set."""
        funding = allocation.funding
        return self._book.limits(job.tenant_id) if not funding.covered_ms or is_limited(funding) else None

    def _again(self, job: Job, allocation: Allocation) -> Estimate:
        """Another window at the price of the first; vouchers pay for as long as their policy does."""
        kept = allocation.funding
        terms = Terms(0, "")
        if kept.voucher_policy_id:
            found = self._terms(job, allocation, self._fleet.facts(allocation.site_id) or Site())
            if found.policy is not None and found.policy.id == kept.voucher_policy_id:
                terms = found
        permille = min(kept.voucher_permille, terms.permille)
        price = Price(kept.rent_microcny_per_hour, kept.other_microcny_per_hour, permille)
        amounts = self._with_vouchers_left(price.over(self._window_ms), terms)
        return Estimate(price, self._window_ms, amounts, terms)

    async def _extend(self, durable: asyncio.Future[None], allocations: Sequence[Allocation]) -> None:
        await durable
        for allocation in allocations:
            self._sessions.extend_funding(allocation)


def _whole_run_ms(spec: JobSpec, group: TaskGroup) -> int:
    """How long a task can run at most; 0: nobody knows."""
    if spec.kind == job_pb2.JOB_KIND_SERVICE or not group.time_limit_ms:
        return 0
    return group.time_limit_ms + _STOP_MARGIN_MS
