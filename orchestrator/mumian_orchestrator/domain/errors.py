"""What can be wrong with a request, each with a stable reason and the fields at fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mumian.api.v1 import error_pb2
from mumian.api.v1.error_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class FieldFault:
    """A field path as in the proto ("task_groups[0].count"), and what is wrong with its value."""

    field: str
    description: str


class RequestRefusedError(Exception):
    """A request that is refused; nothing has changed."""

    def __init__(
        self,
        reason: ErrorReason.ValueType,
        message: str,
        faults: Sequence[FieldFault] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason, self.message, self.faults = reason, message, tuple(faults)
        self.retry_after_s = retry_after_s


def invalid(faults: Sequence[FieldFault]) -> RequestRefusedError:
    """The refusal of a request with wrong fields."""
    message = "; ".join(f"{fault.field} {fault.description}" for fault in faults)
    return RequestRefusedError(error_pb2.ERROR_REASON_INVALID_FIELD, message, faults)


def overloaded(what: str, retry_after_s: float) -> RequestRefusedError:
    """The refusal of a request behind which too many others of its tenant, or of all, already wait."""
    message = f"too many {what} wait; nothing was done, try again in {retry_after_s:.1f} s"
    return RequestRefusedError(error_pb2.ERROR_REASON_OVERLOADED, message, retry_after_s=retry_after_s)


def job_not_found(job_id: str) -> RequestRefusedError:
    """The refusal of a job id that the tenant has no job of."""
    return RequestRefusedError(
        error_pb2.ERROR_REASON_JOB_NOT_FOUND, f"job ({job_id}) does not exist; `mumian jobs` lists yours"
    )
