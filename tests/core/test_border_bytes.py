"""Damaged bytes across the real border: a typed error or a message, never a panic, and nothing changes.

The core's own test (scheduler_core/tests/suite/border_bytes.rs) goes deeper; this one is about the door.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from mumian.api.v1.fleet_pb2 import HEALTH_READY, Node, Site
from mumian.api.v1.job_pb2 import JobSpec, TaskGroup
from mumian.api.v1.resources_pb2 import Resources
from mumian_core import CoreError, Engine, solve_assignment
from mumian_core.v1.assess_pb2 import AssessRequest, AssessResponse
from mumian_core.v1.engine_pb2 import (
    Delta,
    ExplainRequest,
    ExplainResponse,
    PendingJob,
    PlaceRequest,
    Plan,
    UsedResources,
    VerifyRequest,
    VerifyResponse,
)
from mumian_core.v1.optimize_pb2 import (
    AssignmentRequest,
    AssignmentResponse,
    OptimizeRequest,
    OptimizeResponse,
    RunningTask,
    Stop,
)

CODES = {"INVALID_MESSAGE", "RESYNC_NEEDED", "UNKNOWN_SITE", "UNKNOWN_NODE", "INVALID_FIELD"}
CASES = 300
JOB = PendingJob(
    job_id="j",
    spec=JobSpec(task_groups=[TaskGroup(name="main", count=2, resources=Resources(cpu_milli=500))]),
    explain=True,
)
RUNNING = RunningTask(allocation_id="a", job_id="j", task_group="main")
ALLOCATION = UsedResources(
    allocation_id="a", node_id="s/n1", resources=Resources(cpu_milli=500), job_id="j", task_group="main"
)
NODE = Node(id="s/n1", site_id="s", health=HEALTH_READY, cpu_milli=2000)
FLEET = Delta(sites=[Site(id="s", health=HEALTH_READY)], nodes=[NODE], allocations=[ALLOCATION])


def engine() -> Engine:
    """One node, one allocation on it."""
    made = Engine()
    made.apply(FLEET.SerializeToString())
    return made


def plan() -> Plan:
    """A good one."""
    request = PlaceRequest(evaluation_id="e", jobs=[JOB])
    return Plan.FromString(engine().snapshot().place(request.SerializeToString()))


def damaged(data: bytes, random_: random.Random) -> bytes:
    """Some bytes changed, lost or there twice."""
    made = bytearray(data)
    for _ in range(random_.randint(1, 3)):
        at = random_.randrange(len(made) + 1)
        match random_.randrange(4):
            case 0:
                made[at : at + 1] = random_.randbytes(1)
            case 1:
                made[at : at + 1] = random_.choice([b"\xff" * 9 + b"\x01", b"\x00", b"\x7f", b"\x80\x01"])
            case 2:
                del made[at : at + random_.randint(1, 4)]
            case _:
                made[at:at] = made[at : at + random_.randint(1, 20)]
    return bytes(made)


@pytest.mark.parametrize(
    ("good", "answer", "ask"),
    [
        (
            Delta(base_generation=1, nodes=[NODE], allocations=[ALLOCATION]),
            None,
            lambda e, data: e.snapshot().what_if(data),
        ),
        (PlaceRequest(evaluation_id="e", jobs=[JOB]), Plan, lambda e, data: e.snapshot().place(data)),
        (VerifyRequest(plan=plan(), jobs=[JOB]), VerifyResponse, lambda e, data: e.snapshot().verify(data)),
        (ExplainRequest(job=JOB), ExplainResponse, lambda e, data: e.snapshot().explain(data)),
        (AssessRequest(jobs=[JOB], running=[RUNNING]), AssessResponse, lambda e, d: e.snapshot().assess(d)),
        (
            OptimizeRequest(jobs=[JOB], running=[RUNNING], stop=Stop(rounds_max=2, threads=1)),
            OptimizeResponse,
            lambda e, data: e.snapshot().optimize(data),
        ),
        (
            AssignmentRequest(
                agents=2, tasks=2, cost=[1] * 4, weight=[1] * 4, capacity=[2, 2], stop=Stop(rounds_max=2)
            ),
            AssignmentResponse,
            lambda _, data: solve_assignment(data),
        ),
    ],
    ids=["what_if", "place", "verify", "explain", "assess", "optimize", "solve_assignment"],
)
def test_damaged_bytes_give_a_typed_error_or_an_answer(
    good: Message, answer: type[Message] | None, ask: Callable[[Engine, bytes], bytes]
) -> None:
    asked, random_ = engine(), random.Random(7)
    for _ in range(CASES):
        try:
            reply = ask(asked, damaged(good.SerializeToString(), random_))
        except CoreError as error:
            assert error.args[0] in CODES, error
        else:
            assert answer is None or answer.FromString(reply) is not None
    assert asked.generation() == 1
    assert ask(asked, good.SerializeToString())


def test_no_number_that_crosses_the_border_can_be_nan() -> None:
    """All are integers, so that no sum depends on its order either."""
    seen: dict[str, Descriptor] = {}
    left = [message.DESCRIPTOR for message in (Delta, PlaceRequest, Plan, AssessResponse, OptimizeResponse)]
    while left:
        message = left.pop()
        if message.full_name not in seen:
            seen[message.full_name] = message
            left += [field.message_type for field in message.fields if field.message_type]
    floats = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}
    assert [f.full_name for m in seen.values() for f in m.fields if f.type in floats] == []
    assert "mumian.api.v1.HourForecast" in seen


def test_a_damaged_delta_leaves_the_engine_at_its_generation_or_takes_it_one_further() -> None:
    random_ = random.Random(7)
    good = Delta(base_generation=1, nodes=[NODE], allocations=[ALLOCATION])
    for _ in range(CASES):
        changed = engine()
        before = changed.snapshot().place(PlaceRequest(jobs=[JOB]).SerializeToString())
        try:
            assert changed.apply(damaged(good.SerializeToString(), random_)) == 2
        except CoreError as error:
            assert error.args[0] in CODES, error
            assert changed.generation() == 1
            assert changed.snapshot().place(PlaceRequest(jobs=[JOB]).SerializeToString()) == before
