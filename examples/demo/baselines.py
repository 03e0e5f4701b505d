"""What other ways to place would have done with the same jobs, decided by the real core on the same state.

The usual schedulers know no latency promise. To play them, the core places the jobs with the promise's budget
lifted (its zone stays, so that "nearest" has a meaning), and its independent verifier then holds each plan
against the jobs as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mumian.api.v1.explanation_pb2 import Explanation, SiteVerdict
from mumian.api.v1.fleet_pb2 import FIGURE_SOURCE_MEASURED, Link, Node, Site
from mumian.api.v1.job_pb2 import JobSpec, LatencySlo
from mumian_core import Engine
from mumian_core.v1 import engine_pb2

_NO_BUDGET_US = 3_600_000_000
_RANDOM_DRAWS = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way to place gives; means over all draws where it draws."""

    name: str
    sites: Sequence[str]  # of each job; empty where they differ from draw to draw
    promises: int
    promises_kept: float
    broken: Sequence[str]  # why, in the verifier's words
    cny_per_hour: float
    meter_w: float
    unplaced: float


@dataclass(frozen=True, slots=True)
class _Plan:
    sites: Sequence[str]
    kept: int
    broken: Sequence[str]
    cny_per_hour: float
    meter_w: float
    unplaced: int


class Comparison:
    """The empty city, and the jobs to place in it.

    Args:
        decided: what the platform's own decisions say; their round trips are those that all are compared on.
        jobs: by id, as the coordinator normalised them.
        zones: of each job's users, also where it has no promise.
    """

    def __init__(
        self,
        sites: Iterable[Site],
        nodes: Iterable[Node],
        decided: Iterable[Explanation],
        jobs: Mapping[str, JobSpec],
        zones: Mapping[str, str],
        carbon_kg_microcny: int,
    ) -> None:
        self._engine = Engine()
        links = [_link(site) for explanation in decided for site in explanation.sites]
        delta = engine_pb2.Delta(reset=True, sites=sites, nodes=nodes, links=filter(None, links))
        self._engine.apply(delta.SerializeToString())
        self._jobs, self._carbon_kg_microcny = jobs, carbon_kg_microcny
        self._blind = {job_id: _without_budget(spec, zones[job_id]) for job_id, spec in jobs.items()}

    def outcomes(self) -> list[Outcome]:
        """Ours and the others, in the order in which they are shown."""
        ours = self._place(self._jobs, engine_pb2.OBJECTIVE_COST, "ours")
        nearest = self._place(self._blind, engine_pb2.OBJECTIVE_NEAREST, "nearest")
        rent = self._place(self._blind, engine_pb2.OBJECTIVE_CHEAPEST_RENT, "rent")
        draws = [
            self._place(self._blind, engine_pb2.OBJECTIVE_RANDOM, f"draw-{number}")
            for number in range(_RANDOM_DRAWS)
        ]
        return [
            self._outcome("Mumian", [ours]),
            self._outcome("nearest site", [nearest]),
            self._outcome("cheapest rent", [rent]),
            self._outcome(f"{_RANDOM_DRAWS} x random", draws),
        ]

    def _place(
        self, specs: Mapping[str, JobSpec], objective: engine_pb2.Objective.ValueType, evaluation_id: str
    ) -> _Plan:
        policy = engine_pb2.Policy(carbon_kg_microcny=self._carbon_kg_microcny, objective=objective)
        jobs = [engine_pb2.PendingJob(job_id=job_id, spec=spec) for job_id, spec in specs.items()]
        request = engine_pb2.PlaceRequest(evaluation_id=evaluation_id, jobs=jobs, policy=policy)
        snapshot = self._engine.snapshot()
        plan = engine_pb2.Plan.FromString(snapshot.place(request.SerializeToString()))
        as_they_are = [engine_pb2.PendingJob(job_id=job_id, spec=spec) for job_id, spec in self._jobs.items()]
        check = engine_pb2.VerifyRequest(plan=plan, jobs=as_they_are)
        answer = engine_pb2.VerifyResponse.FromString(snapshot.verify(check.SerializeToString()))
        verdicts = list(zip(plan.placements, answer.verdicts, strict=True))
        site_of = {placement.job_id: placement.site_id for placement in plan.placements}
        return _Plan(
            sites=[site_of.get(job_id, "-") for job_id in specs],
            kept=sum(verdict.accepted for placement, verdict in verdicts if self._promised(placement.job_id)),
            broken=[
                f"{self._jobs[placement.job_id].name}: {verdict.rejection.reason}"
                for placement, verdict in verdicts
                if not verdict.accepted
            ],
            cny_per_hour=sum(p.cost.total_microcny_per_hour for p in plan.placements) / 1e6,
            meter_w=sum(p.cost.facility_power_mw for p in plan.placements) / 1e3,
            unplaced=len(plan.unplaced),
        )

    def _promised(self, job_id: str) -> bool:
        return any(group.HasField("latency_slo") for group in self._jobs[job_id].task_groups)

    def _outcome(self, name: str, plans: Sequence[_Plan]) -> Outcome:
        def mean(values: Iterable[float]) -> float:
            return sum(values) / len(plans)

        return Outcome(
            name=name,
            sites=plans[0].sites if len(plans) == 1 else (),
            promises=sum(self._promised(job_id) for job_id in self._jobs),
            promises_kept=mean(plan.kept for plan in plans),
            broken=plans[0].broken if len(plans) == 1 else (),
            cny_per_hour=mean(plan.cny_per_hour for plan in plans),
            meter_w=mean(plan.meter_w for plan in plans),
            unplaced=mean(plan.unplaced for plan in plans),
        )


def _link(site: SiteVerdict) -> Link | None:
    """The link that a site was judged by; None where it had none to be judged by."""
    if not site.latency.link_known:
        return None
    return Link(
        from_id=site.latency.zone_id,
        to_site_id=site.site_id,
        rtt_p50_us=site.latency.rtt_p99_us,  # not told, and not asked
        rtt_p99_us=site.latency.rtt_p99_us,
        source=FIGURE_SOURCE_MEASURED,
    )


def _without_budget(spec: JobSpec, zone: str) -> JobSpec:
    blind = JobSpec()
    blind.CopyFrom(spec)
    for group in blind.task_groups:
        if not group.HasField("latency_slo"):
            group.latency_slo.CopyFrom(LatencySlo(zone_ids=[zone]))
        group.latency_slo.budget_us = _NO_BUDGET_US
    return blind
