"""What admission says of a spec's constraints that couple tasks. Needs neither etcd nor an engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mumian.api.v1 import error_pb2, job_pb2
from mumian.api.v1.job_pb2 import JobSpec, TaskGroup
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.job_spec import normalise

SITE = job_pb2.TOPOLOGY_SITE


def spec(change: Callable[[TaskGroup], object]) -> JobSpec:
    """A job of two groups, the first of them changed."""
    made = JobSpec(name="vr")
    for name in ("render", "world"):
        made.task_groups.add(name=name).command.argv.append("true")
    change(made.task_groups[0])
    return made


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        (lambda g: g.spreads.add(max_tasks=1), "spreads[0].topology", "(0) is no topology; use node"),
        (lambda g: g.spreads.add(topology=SITE), "spreads[0].max_tasks", "(0) must be positive"),
        (
            lambda g: [g.spreads.add(topology=SITE, max_tasks=n) for n in (1, 2)],
            "spreads[1].topology",
            "(site) has a limit already",
        ),
        (
            lambda g: g.apart_from.add(topology=SITE, task_group="wolrd"),
            "apart_from[0].task_group",
            "('wolrd') is no group of this job; it has render, world",
        ),
        (
            lambda g: g.apart_from.add(topology=SITE, task_group="render"),
            "apart_from[0].task_group",
            "is the group itself; use spreads",
        ),
        (lambda g: g.apart_from.add(task_group="world"), "apart_from[0].topology", "(0) is no topology"),
        (
            lambda g: [g.apart_from.add(topology=t, task_group="world") for t in (SITE, 1)],
            "apart_from[1].task_group",
            "keep the widest topology",
        ),
        (lambda g: setattr(g, "together", 9), "together", "(9) is no topology; use node, switch, rack"),
        (
            lambda g: g.group_latencies.add(task_group="", budget_us=1),
            "group_latencies[0].task_group",
            "('') is no group of this job",
        ),
        (lambda g: g.group_latencies.add(task_group="world"), "group_latencies[0].budget_us", "(0) must be"),
        (
            lambda g: (
                g.compute_time.MergeFrom(job_pb2.ComputeTime(default_us=9000, by_arch_us={"arm64": 6000})),
                g.group_latencies.add(task_group="world", budget_us=5000),
            ),
            "group_latencies[0].budget_us",
            "(5000) is less than the group's own compute time (6000)",
        ),
        (lambda g: g.zone_traffic.add(zone_id="z"), "zone_traffic[0].bandwidth_kbps", "(0) must be positive"),
        (
            lambda g: g.zone_traffic.add(zone_id="z", bandwidth_kbps=1 << 41),
            "zone_traffic[0].bandwidth_kbps",
            "must be at most",
        ),
        (
            lambda g: [g.zone_traffic.add(zone_id="z", bandwidth_kbps=1) for _ in range(2)],
            "zone_traffic[1].zone_id",
            "('z') is there twice",
        ),
    ],
)
def test_a_constraint_that_makes_no_sense_is_refused_with_its_field(
    change: Callable[[TaskGroup], object], field: str, said: str
) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        normalise(spec(change), {"z"})
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_FIELD
    faults = {fault.field: fault.description for fault in caught.value.faults}
    assert said in faults[f"task_groups[0].{field}"]


def test_traffic_from_a_zone_that_nobody_knows_is_refused() -> None:
    with pytest.raises(RequestRefusedError, match="known zones: z") as caught:
        normalise(spec(lambda g: g.zone_traffic.add(zone_id="moon", bandwidth_kbps=1)), {"z"})
    assert caught.value.reason == error_pb2.ERROR_REASON_UNKNOWN_ZONE
    assert caught.value.faults[0].field == "task_groups[0].zone_traffic[0].zone_id"


def test_a_group_may_be_near_itself_and_others_and_apart_from_others() -> None:
    def change(group: TaskGroup) -> None:
        group.spreads.add(topology=SITE, max_tasks=2)
        group.apart_from.add(topology=job_pb2.TOPOLOGY_NODE, task_group="world")
        for name in ("render", "world"):
            group.group_latencies.add(task_group=name, budget_us=5000)
        group.zone_traffic.add(zone_id="z", bandwidth_kbps=50_000)

    made = spec(change)
    assert normalise(made, {"z"}).task_groups[0].group_latencies == made.task_groups[0].group_latencies
