"""What a job would cost where it would go now: the same terms that its commit would fix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from mumian.api.v1.fleet_pb2 import Site
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian.api.v1.money_pb2 import Quote, QuoteLine

from mumian_orchestrator.domain.decision import Placement
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.money.documents import MoneyDocuments
from mumian_orchestrator.services.money.funding import Estimate, Funding

_SUMMED = (
    "rent_microcny_per_hour",
    "energy_microcny_per_hour",
    "carbon_microcny_per_hour",
    "egress_microcny_per_hour",
    "voucher_microcny_per_hour",
)


class Quotes:
    """Quotes for plans. Nothing is reserved."""

    def __init__(
        self,
        propose: Callable[[Job, Sequence[Placement]], list[Allocation]],
        funding: Funding,
        documents: MoneyDocuments,
        fleet: Fleet,
    ) -> None:
        self._propose, self._funding = propose, funding
        self._documents, self._fleet = documents, fleet

    def quote(self, job: Job, placements: Sequence[Placement]) -> Quote:
        """For the tasks of a plan that have a place."""
        quote = Quote()
        by_site: dict[str, list[tuple[Allocation, Estimate]]] = defaultdict(list)
        estimates = []
        for allocation in self._propose(job, placements):
            estimate = self._funding.estimate(job, allocation)
            estimates.append(estimate)
            by_site[allocation.site_id].append((allocation, estimate))
        for site_id, tasks in by_site.items():
            quote.lines.append(self._line(site_id, tasks))
        for field in _SUMMED:
            setattr(quote, field, sum(getattr(line, field) for line in quote.lines))
        quote.tenant_microcny_per_hour = (
            quote.rent_microcny_per_hour
            + quote.energy_microcny_per_hour
            + quote.carbon_microcny_per_hour
            + quote.egress_microcny_per_hour
            - quote.voucher_microcny_per_hour
        )
        if self._funding.has_budget(job.tenant_id):
            quote.reserve_microcny = sum(estimate.amounts.tenant for estimate in estimates)
            missing = self._funding.shortage(job, estimates)
            if missing is not None:
                quote.shortage.CopyFrom(missing)
        return quote

    def _line(self, site_id: str, tasks: Sequence[tuple[Allocation, Estimate]]) -> QuoteLine:
        site = self._fleet.facts(site_id) or Site()
        line = QuoteLine(site_id=site_id, operator_id=site.operator_id, task_count=len(tasks))
        for allocation, estimate in tasks:
            cost, amounts = allocation.cost, estimate.amounts
            line.rent_microcny_per_hour += cost.rent_microcny_per_hour
            line.energy_microcny_per_hour += cost.energy_microcny_per_hour
            line.carbon_microcny_per_hour += cost.carbon_microcny_per_hour
            line.egress_microcny_per_hour += cost.egress_microcny_per_hour
            # Where the pool is nearly empty it pays less than its share.
            if amounts.rent:
                line.voucher_microcny_per_hour += (
                    cost.rent_microcny_per_hour * amounts.voucher // amounts.rent
                )
        line.price_source = "offer" if self._documents.in_force(site) else "site"
        line.voucher_reason = tasks[0][1].terms.reason
        return line
