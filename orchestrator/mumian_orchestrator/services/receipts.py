"""Settles what has ended: each allocation gets one receipt, which is stored with its terminal state."""

from __future__ import annotations

from mumian.api.v1.fleet_pb2 import Site
from mumian.api.v1.job_pb2 import Allocation

from mumian_orchestrator.domain.job_state import is_live
from mumian_orchestrator.domain.receipt import receipt_of
from mumian_orchestrator.services.fleet import Fleet


class Receipts:
    """Receipts at the rates of the sites as they are known now."""

    def __init__(self, fleet: Fleet, carbon_kg_microcny: int) -> None:
        self._fleet, self._carbon_kg_microcny = fleet, carbon_kg_microcny

    def settle(self, allocation: Allocation) -> None:
        """Give an allocation its receipt if it has ended. What never started gets none."""
        has_run = allocation.HasField("start_time") and allocation.HasField("end_time")
        if is_live(allocation) or not has_run:
            return
        site = self._fleet.site(allocation.site_id) or Site()
        allocation.receipt.CopyFrom(receipt_of(allocation, site, self._carbon_kg_microcny))
