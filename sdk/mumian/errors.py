"""The one exception that callers of Mumian have to know, and how a gRPC error becomes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc

ERROR_DOMAIN = "mumian.dev"
COORDINATOR_VARIABLE = "MUMIAN_COORDINATOR"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field at fault ("task_groups[0].latency_slo.budget_us") and what is wrong with its value."""

    field: str
    description: str


class MumianError(Exception):
    """A request that was refused or not answered.

    `reason` is a name of `mumian.api.v1.ErrorReason` without its prefix ("JOB_NOT_FOUND"); it is stable.
    `retry_after_s` is set by a coordinator that has too much to do: the same request may then be sent again.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        field_violations: Sequence[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.field_violations = tuple(field_violations)
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s


def invalid_field(field: str, description: str) -> MumianError:
    """The refusal of one value before it is sent."""
    return MumianError("INVALID_FIELD", f"{field} {description}", [FieldViolation(field, description)])


def message_too_large(size_bytes: int, limit_bytes: int) -> MumianError:
    """The refusal of a request that no coordinator would take."""
    return MumianError(
        "MESSAGE_TOO_LARGE",
        f"the request ({_mib(size_bytes)}) is over the limit of {_mib(limit_bytes)}; "
        "put data into files that the task reads, not into its command or environment",
    )


def from_rpc_error(error: grpc.RpcError, address: str) -> MumianError:
    """What a failed call to the coordinator at `address` means."""
    import grpc

    call: Any = error
    code, details = call.code(), call.details() or ""
    told = _from_rich_status(call)
    if told is not None:
        return told
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return MumianError(
            "MESSAGE_TOO_LARGE", f"{details}; put data into files, not into a job's command or environment"
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unreachable(address, _cause(details))
    if code is grpc.StatusCode.CANCELLED:
        # Not by the caller, who would not be here: the coordinator went down or changed its part meanwhile.
        return _unreachable(address, "it broke the call off")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return _unreachable(address, "no answer in time")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return _unreachable(address, f"something else or another version is there: {details}")
    return MumianError("INTERNAL", f"{code.name if code else 'UNKNOWN'} from {address}: {details}")


def _from_rich_status(call: Any) -> MumianError | None:
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    try:
        status = rpc_status.from_call(call)
    except ValueError:  # The trailer contradicts the status line: not one of ours.
        return None
    if status is None:
        return None
    info, violations, retry_after_s = error_details_pb2.ErrorInfo(), [], None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            violations += [FieldViolation(v.field, v.description) for v in bad.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo.FromString(detail.value)
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    if info.domain != ERROR_DOMAIN:
        return None
    return MumianError(info.reason, status.message, violations, info.metadata, retry_after_s)


def _unreachable(address: str, cause: str) -> MumianError:
    return MumianError(
        "CLIENT_UNREACHABLE",
        f"no coordinator answers at {address} ({cause}); "
        f"start one with `mumian up` or set {COORDINATOR_VARIABLE}",
        metadata={"address": address},
    )


def _cause(details: str) -> str:
    """The part of gRPC's chain of errors that says something to a user."""
    lowered = details.lower()
    for sign, cause in (
        ("connection refused", "connection refused"),
        ("certificate_verify_failed", "its certificate is not of the authority in --ca, or of another name"),
        ("hostname verification", "its certificate is for another name; see tls_names of the coordinator"),
        ("peer name", "its certificate is for another name; see tls_names of the coordinator"),
        ("wrong_version_number", "it speaks no TLS; leave --ca out"),
        ("ssl_error", "TLS failed; is the coordinator's authority the one in --ca?"),
        ("socket closed", "it ended the connection; it may want TLS, so give --ca FILE"),
        ("dns resolution failed", "the host name is not known"),
        ("domain name not found", "the host name is not known"),
        ("http1", "what answers is no gRPC server"),
        ("timeout occurred", "no answer in time"),
        ("timed out", "no answer in time"),
        ("no route to host", "no route to host"),
        ("network is unreachable", "network is unreachable"),
    ):
        if sign in lowered:
            return cause
    return details.rsplit(": ", 1)[-1] or "unavailable"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:.1f} MiB"
