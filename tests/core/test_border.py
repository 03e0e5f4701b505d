"""The border to Rust: bytes in, bytes out, one exception with a stable code."""

from __future__ import annotations

import pytest
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.resources_pb2 import Resources
from mumian_core import CoreError, Engine
from mumian_core.v1 import engine_pb2


def engine_of_one_node() -> Engine:
    """A cluster of one ready site with one ready node of two cores."""
    ready = fleet_pb2.HEALTH_READY
    delta = engine_pb2.Delta(
        reset=True,
        sites=[fleet_pb2.Site(id="gz", health=ready)],
        nodes=[fleet_pb2.Node(id="gz/n1", site_id="gz", health=ready, cpu_milli=2000, memory_mib=1024)],
    )
    engine = Engine()
    assert engine.apply(delta.SerializeToString()) == 1
    return engine


def request_of(task_count: int) -> bytes:
    """A batch job whose tasks take one core each."""
    group = job_pb2.TaskGroup(name="main", count=task_count, resources=Resources(cpu_milli=1000))
    job = engine_pb2.PendingJob(job_id="job", spec=job_pb2.JobSpec(task_groups=[group]), explain=True)
    return engine_pb2.PlaceRequest(evaluation_id="e", jobs=[job]).SerializeToString()


def test_a_plan_fills_the_node_and_says_why_the_rest_waits() -> None:
    plan = engine_pb2.Plan.FromString(engine_of_one_node().snapshot().place(request_of(3)))
    assert [p.node_id for p in plan.placements] == ["gz/n1", "gz/n1"]
    assert [u.task_index for u in plan.unplaced] == [2]
    assert plan.explanations[0].explanation.summary.startswith("2 of 3 tasks placed")


def test_recorded_bytes_replay_to_the_same_bytes() -> None:
    plans = {engine_of_one_node().snapshot().place(request_of(3)) for _ in range(3)}
    assert len(plans) == 1


def test_a_snapshot_does_not_see_later_deltas() -> None:
    engine = engine_of_one_node()
    snapshot = engine.snapshot()
    engine.apply(engine_pb2.Delta(base_generation=1, removed_site_ids=["gz"]).SerializeToString())
    assert len(engine_pb2.Plan.FromString(snapshot.place(request_of(1))).placements) == 1
    assert not engine_pb2.Plan.FromString(engine.snapshot().place(request_of(1))).placements


@pytest.mark.parametrize(
    ("delta", "code"),
    [
        (b"\xff", "INVALID_MESSAGE"),
        (engine_pb2.Delta(base_generation=9).SerializeToString(), "RESYNC_NEEDED"),
        (
            engine_pb2.Delta(
                base_generation=1, allocations=[engine_pb2.UsedResources(allocation_id="a", node_id="gone")]
            ).SerializeToString(),
            "UNKNOWN_NODE",
        ),
    ],
)
def test_a_wrong_delta_is_refused_with_its_code_and_changes_nothing(delta: bytes, code: str) -> None:
    engine = engine_of_one_node()
    with pytest.raises(CoreError) as refused:
        engine.apply(delta)
    assert refused.value.args[0] == code
    assert engine.generation() == 1
