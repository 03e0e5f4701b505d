"""One evaluation's turns: who goes next, how many tasks may go, and in words why others did not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from mumian.api.v1 import explanation_pb2, job_pb2
from mumian.api.v1.explanation_pb2 import Explanation
from mumian.api.v1.job_pb2 import Job

from mumian_orchestrator.domain.decision import Decision, PendingJob, TaskId
from mumian_orchestrator.domain.shares import (
    NOTHING,
    PARTS,
    RESOURCES,
    UNLIMITED,
    Amount,
    Quota,
    ShareRules,
    demand_of,
    dominant,
    is_below,
)
from mumian_orchestrator.services.job_table import JobTable

# A task that is refused by one of these waits for others to end.
_ROOM = frozenset(
    {
        explanation_pb2.FILTER_CPU,
        explanation_pb2.FILTER_MEMORY,
        explanation_pb2.FILTER_ACCELERATORS,
        explanation_pb2.FILTER_GANG,
    }
)

# Tasks that are not considered, by group, and why.
Held = Mapping[str, tuple[int, str]]
_NOT_HELD: Held = {}
_NONE_LATER = Counter[str]()


class Turns:
    """What the tenants hold now, with what is about to be placed."""

    def __init__(self, rules: ShareRules, table: JobTable, capacity: Amount) -> None:
        self._rules, self._table, self._capacity = rules, table, capacity
        self._holdings = table.holdings
        self._planned: defaultdict[str, Amount] = defaultdict(lambda: NOTHING)
        self._planned_projects: defaultdict[tuple[str, str], Amount] = defaultdict(lambda: NOTHING)
        self._held: dict[str, Held] = {}

    def rank(self, tenant_id: str) -> tuple[bool, int]:
        """The smallest goes next: first those below their guarantee, then by dominant share over weight."""
        rules, held = self._rules.of(tenant_id), self._held_by(tenant_id)
        share, _ = dominant(held, self._capacity)
        return not is_below(held, rules.guaranteed), share // rules.weight

    def admit(self, job: Job, tasks: Sequence[TaskId]) -> tuple[TaskId, ...]:
        """Those of the tasks that no quota holds back; of a gang all or none. From now on they count."""
        admitted = tuple(tasks)
        if quotas := self._quotas(job):
            admitted, self._held[job.id] = _within(quotas, job, tasks)
        planned, groups = NOTHING, job.spec.task_groups
        counts = {groups[0].name: len(admitted)} if len(groups) == 1 else _by_count(admitted)
        for group in groups:
            planned = planned.plus(demand_of(group), counts[group.name])
        self._planned[job.tenant_id] = self._planned[job.tenant_id].plus(planned)
        if quotas:
            project = job.tenant_id, job.spec.project
            self._planned_projects[project] = self._planned_projects[project].plus(planned)
        return admitted

    def held_only(self, job: Job) -> list[Explanation]:
        """Of a job none of whose tasks is considered: why."""
        return [
            Explanation(task_group=name, task_count=count, held_task_count=count, held_reason=reason)
            for name, (count, reason) in self._held.get(job.id, _NOT_HELD).items()
        ]

    def explain(self, asked: Sequence[PendingJob], claims: Sequence[PendingJob], decision: Decision) -> None:
        """Add to a decision's explanations what the shares had to do with it.

        Args:
            asked: what was to be placed, in the order of the turns.
            claims: the same, less what comes after the part that a guarantee covers.
        """
        placed = {placement.job_id for placement in decision.placements}
        gone: list[Job] = []
        for whole, claim in zip(asked, claims, strict=True):
            job = self._table.get(whole.job_id)
            if job is None:
                continue
            later = _by_count(whole.tasks) - _by_count(claim.tasks) if whole is not claim else _NONE_LATER
            held = self._held.get(job.id, _NOT_HELD)
            concerned = decision.explanations.get(job.id, ()) if held or later or gone else ()
            for explanation in concerned:
                count, reason = held.get(explanation.task_group, (0, ""))
                explanation.task_count += count + later[explanation.task_group]
                explanation.held_task_count, explanation.held_reason = count, reason
                if any(rejection.filter in _ROOM for rejection in explanation.rejections):
                    explanation.share_reason = self._gone_first(job, gone)
            if job.id in placed:
                gone.append(job)

    def _gone_first(self, job: Job, placed: Sequence[Job]) -> str:
        """Why work of other tenants was placed while this job found no room; empty when none was."""
        foreign = [other for other in placed if other.tenant_id != job.tenant_id]
        if not foreign:
            return ""
        tasks = "work of other tenants went first"  # how much, and whose, is theirs to know
        if all(other.spec.priority > job.spec.priority for other in foreign):
            return f"{tasks}: of higher priority than {job.spec.priority}"
        share, name = dominant(self._holdings.of_tenant(job.tenant_id), self._capacity)
        rules = self._rules.of(job.tenant_id)
        held = f"tenant {job.tenant_id} holds {100 * share / PARTS:.3g} % of the fleet's {RESOURCES[name]}"
        return f"{tasks}: {held} at weight {rules.weight}, more than they do for theirs"

    def _held_by(self, tenant_id: str) -> Amount:
        return self._holdings.of_tenant(tenant_id).plus(self._planned[tenant_id])

    def _quotas(self, job: Job) -> list[Quota]:
        rules, project = self._rules.of(job.tenant_id), job.spec.project
        quotas = []
        if rules.quota != UNLIMITED:
            quotas.append(Quota(f"tenant {job.tenant_id}", rules.quota, self._held_by(job.tenant_id)))
        if project in rules.projects:
            held = self._holdings.of_project(job.tenant_id, project)
            planned = self._planned_projects[job.tenant_id, project]
            quotas.append(Quota(f"project {project}", rules.projects[project], held.plus(planned)))
        return quotas


def _within(
    quotas: Sequence[Quota], job: Job, tasks: Sequence[TaskId]
) -> tuple[tuple[TaskId, ...], dict[str, tuple[int, str]]]:
    """Those of the tasks for which all quotas have room, and the others."""
    demands = {group.name: demand_of(group) for group in job.spec.task_groups}
    admitted: list[TaskId] = []
    held: dict[str, tuple[int, str]] = {}
    for name, wanted in _by_group(tasks).items():
        demand = demands[name]
        taken = wanted[: min(quota.room(demand) for quota in quotas)]
        admitted += taken
        quotas = [quota.with_more(demand, len(taken)) for quota in quotas]
        if len(taken) < len(wanted):
            reason = next(filter(None, (quota.excess(demand) for quota in quotas)))
            held[name] = len(wanted) - len(taken), reason
    if held and job.spec.kind == job_pb2.JOB_KIND_GANG:
        _, reason = next(iter(held.values()))
        return (), {name: (len(wanted), reason) for name, wanted in _by_group(tasks).items()}
    return tuple(admitted), held


def _by_count(tasks: Sequence[TaskId]) -> Counter[str]:
    return Counter(task.group for task in tasks)


def _by_group(tasks: Sequence[TaskId]) -> dict[str, list[TaskId]]:
    found: dict[str, list[TaskId]] = {}
    for task in tasks:
        found.setdefault(task.group, []).append(task)
    return found
