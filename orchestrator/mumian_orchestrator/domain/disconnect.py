"""The contract for tasks on a silent site: its defaults, when one is lost, which of two copies goes on."""

from __future__ import annotations

from collections.abc import Iterator

from mumian.agent.v1.agent_pb2 import AllocationStatus
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Allocation, Job, JobKind, JobSpec, OnDisconnect

from mumian_orchestrator.domain.coupling import QUANTITY_MAX
from mumian_orchestrator.domain.errors import FieldFault
from mumian_orchestrator.domain.job_state import TERMINAL_ALLOCATION_STATES, is_doomed

LOST_AFTER_S_DEFAULT = {
    job_pb2.JOB_KIND_BATCH: 300,
    job_pb2.JOB_KIND_GANG: 300,
    job_pb2.JOB_KIND_SERVICE: 60,
}
# A site tells more than one silence of a heartbeat, and ends a task before its stop_after is over; this is
# for clocks that run at different speeds, and for a processor that is late.
STOP_MARGIN_S = 5
STOP_AFTER_S_MIN = 10
_RECONCILES = frozenset(job_pb2.Reconcile.values())


def fill(contract: OnDisconnect, kind: JobKind.ValueType) -> None:
    """Put the defaults in."""
    if not contract.HasField("lost_after_s"):
        contract.lost_after_s = LOST_AFTER_S_DEFAULT.get(kind, 300)
    if not contract.HasField("replace"):
        contract.replace = True
    if not contract.reconcile:
        contract.reconcile = (
            job_pb2.RECONCILE_BEST_SCORE
            if kind == job_pb2.JOB_KIND_SERVICE
            else job_pb2.RECONCILE_KEEP_ORIGINAL
        )


def faults(spec: JobSpec) -> Iterator[FieldFault]:
    """What is wrong with a job's contract."""
    contract = spec.on_disconnect
    for field in ("lost_after_s", "stop_after_s"):
        value = getattr(contract, field)
        if value > QUANTITY_MAX:
            yield FieldFault(f"on_disconnect.{field}", f"({value}) must be at most {QUANTITY_MAX}")
    if 0 < contract.stop_after_s < STOP_AFTER_S_MIN:
        yield FieldFault(
            "on_disconnect.stop_after_s",
            f"({contract.stop_after_s}) must be at least {STOP_AFTER_S_MIN}: a site does not know sooner "
            "that it is cut off; 0 lets the task go on",
        )
    if contract.reconcile not in _RECONCILES:
        yield FieldFault("on_disconnect.reconcile", f"({contract.reconcile}) is unknown")


def lost_after_s(job: Job) -> float | None:
    """The silence of a site after which a job's tasks there are lost; None: never, as long as it is silent.

    A task of an at-most-once job is not lost before it has surely stopped.
    """
    contract = job.spec.on_disconnect
    if not job.spec.at_most_once or is_doomed(job):
        return contract.lost_after_s
    if not contract.stop_after_s:
        return None
    return max(contract.lost_after_s, contract.stop_after_s + STOP_MARGIN_S)


def keeps_original(spec: JobSpec, original: Allocation, status: AllocationStatus, other: Allocation) -> bool:
    """Whether a lost allocation that is heard of again goes on, rather than the one that replaced it.

    Args:
        status: what the site tells of the original now.
        other: the replacement, neither ended nor superseded, or ended with success.
    """
    policy = spec.on_disconnect.reconcile
    if other.state == job_pb2.ALLOCATION_STATE_SUCCEEDED or policy == job_pb2.RECONCILE_KEEP_REPLACEMENT:
        return False
    if status.state in TERMINAL_ALLOCATION_STATES:
        return status.state == job_pb2.ALLOCATION_STATE_SUCCEEDED
    if policy == job_pb2.RECONCILE_BEST_SCORE:
        return original.cost.total_microcny_per_hour <= other.cost.total_microcny_per_hour
    if policy == job_pb2.RECONCILE_LONGEST_RUNNING and other.HasField("start_time"):
        return (
            status.HasField("start_time")
            and status.start_time.ToNanoseconds() <= other.start_time.ToNanoseconds()
        )
    return True
