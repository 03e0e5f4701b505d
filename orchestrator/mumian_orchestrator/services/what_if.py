"""How the fleet would fare after some changes, on a view of it; nothing happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mumian.api.v1.planning_pb2 import AffectedTask, FleetChange
from mumian.api.v1.planning_service_pb2 import WhatIfResponse

from mumian_orchestrator.domain.arrangement import RunningTask, SearchLimits
from mumian_orchestrator.domain.decision import TaskId
from mumian_orchestrator.ports.engine import Engine, View
from mumian_orchestrator.services.arrangements import Arrangements
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.fleet_changes import FleetChanges
from mumian_orchestrator.services.job_table import JobTable


class WhatIf:
    """Compares the fleet as it is with the fleet after some changes, each at its best."""

    def __init__(self, fleet: Fleet, table: JobTable, engine: Engine, arrangements: Arrangements) -> None:
        self._fleet, self._table, self._engine = fleet, table, engine
        self._arrangements = arrangements

    async def answer(self, changes: Sequence[FleetChange], limits: SearchLimits) -> WhatIfResponse:
        """The arrangements before and after, and which tasks the changes drive out.

        Raises:
            RequestRefusedError: INVALID_FIELD or SITE_NOT_FOUND.
        """
        view, stock = self._engine.view(), self._arrangements.stock()
        changed = FleetChanges(self._fleet, stock.jobs, changes)
        driven_out = [task for task in stock.running if task.site_id in changed.emptied_site_ids]
        after_view, after_stock = self._after(view, changed), stock.asking(changed.specs).without(driven_out)
        now, standing = await self._arrangements.as_it_runs(view, stock)
        before = await self._arrangements.best(view, stock, limits)
        left_alone, _ = await self._arrangements.as_it_runs(after_view, after_stock)
        after = await self._arrangements.best(after_view, after_stock, limits)
        new_places = {(p.job_id, p.task): p.node_id for p in after.solution.placements}
        affected = [_affected(task, new_places) for task in driven_out]
        for task in after_stock.running:
            broken = after.standing[task.allocation_id].broken
            if broken is not None and standing[task.allocation_id].broken is None:
                affected.append(_affected(task, new_places))
                affected[-1].broken.CopyFrom(broken)
        return WhatIfResponse(
            as_it_runs=now,
            best_before=before.arrangement,
            left_alone=left_alone,
            best_after=after.arrangement,
            affected=affected,
        )

    def _after(self, view: View, changed: FleetChanges) -> View:
        """The view after the changes; what ran on emptied sites is gone from it."""
        live = self._table.live_allocations()
        return view.changed(
            sites=list(changed.sites.values()),
            nodes=changed.nodes,
            links=list(changed.links.values()),
            removed_site_ids=sorted(changed.lost_site_ids),
            freed=[a.id for _, a in live if a.site_id in changed.drained_site_ids],
        )


def _affected(task: RunningTask, new_places: Mapping[tuple[str, TaskId], str]) -> AffectedTask:
    return AffectedTask(
        job_id=task.job_id,
        task_group=task.task.group,
        task_index=task.task.index,
        node_id=task.node_id,
        to_node_id=new_places.get((task.job_id, task.task), ""),
    )
