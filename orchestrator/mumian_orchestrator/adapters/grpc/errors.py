"""Refusals on the wire: google.rpc.ErrorInfo with a stable reason, BadRequest with the fields at fault."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from mumian.api.v1 import error_pb2

from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError
from mumian_orchestrator.ports.store import SupersededError

log = logging.getLogger(__name__)

DOMAIN = "mumian.dev"
# A status travels in HTTP/2 trailers, of which gRPC takes 8 KiB by default: the message once with up to three
# bytes for each, and once more beside the fields, four bytes for three.
_MESSAGE_BYTES_MAX, _FIELDS_BYTES_MAX, _FIELD_BYTES_MAX = 1024, 2400, 300
_CODES = {
    error_pb2.ERROR_REASON_INVALID_FIELD: code_pb2.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_UNKNOWN_ZONE: code_pb2.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_REQUEST_ID_REUSED: code_pb2.ALREADY_EXISTS,
    error_pb2.ERROR_REASON_JOB_NOT_FOUND: code_pb2.NOT_FOUND,
    error_pb2.ERROR_REASON_ALLOCATION_NOT_FOUND: code_pb2.NOT_FOUND,
    error_pb2.ERROR_REASON_SITE_NOT_FOUND: code_pb2.NOT_FOUND,
    error_pb2.ERROR_REASON_INVALID_PAGE_TOKEN: code_pb2.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_MESSAGE_TOO_LARGE: code_pb2.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_NOT_LEADER: code_pb2.UNAVAILABLE,
    error_pb2.ERROR_REASON_STORE_UNAVAILABLE: code_pb2.UNAVAILABLE,
    error_pb2.ERROR_REASON_NOT_CHARGED: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_STORE_FULL: code_pb2.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_SITE_UNREACHABLE: code_pb2.UNAVAILABLE,
    error_pb2.ERROR_REASON_CLOCK_SKEW: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_SITE_ID_TAKEN: code_pb2.ALREADY_EXISTS,
    error_pb2.ERROR_REASON_OVERLOADED: code_pb2.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_BUNDLE_NOT_FOUND: code_pb2.NOT_FOUND,
    error_pb2.ERROR_REASON_OUTPUT_NOT_FOUND: code_pb2.NOT_FOUND,
    error_pb2.ERROR_REASON_UNAUTHENTICATED: code_pb2.UNAUTHENTICATED,
    error_pb2.ERROR_REASON_PERMISSION_DENIED: code_pb2.PERMISSION_DENIED,
    error_pb2.ERROR_REASON_SITE_REVOKED: code_pb2.PERMISSION_DENIED,
    error_pb2.ERROR_REASON_JOIN_REFUSED: code_pb2.PERMISSION_DENIED,
    error_pb2.ERROR_REASON_TOKEN_NOT_FOUND: code_pb2.NOT_FOUND,
    error_pb2.ERROR_REASON_SECRET_NOT_FOUND: code_pb2.NOT_FOUND,
    error_pb2.ERROR_REASON_SECRET_IN_USE: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_LOG_FILES_AWAY: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_SECRETS_OFF: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_INTERNAL: code_pb2.INTERNAL,
}

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]


async def abort(context: Context, refused: RequestRefusedError) -> NoReturn:
    """End the call with the refusal."""
    name = error_pb2.ErrorReason.Name(refused.reason).removeprefix("ERROR_REASON_")
    info = error_details_pb2.ErrorInfo(reason=name, domain=DOMAIN)
    bad = _bad_request(refused.faults)
    left_out = len(refused.faults) - len(bad.field_violations)
    if left_out:
        info.metadata["fields_left_out"] = str(left_out)
    details = [_packed(info), _packed(bad)] if refused.faults else [_packed(info)]
    if refused.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(refused.retry_after_s * 1000))
        details.append(_packed(retry))
    message = _shortened(refused.message, _MESSAGE_BYTES_MAX)
    status = status_pb2.Status(code=_CODES[refused.reason], message=message, details=details)
    await context.abort_with_status(rpc_status.to_status(status))


def refusal_of(refused: RequestRefusedError) -> error_pb2.Refusal:
    """A refusal inside an answer; there is room for all of it."""
    retry_after_s = refused.retry_after_s
    return error_pb2.Refusal(
        reason=refused.reason,
        message=refused.message,
        field_violations=[
            error_pb2.FieldViolation(field=fault.field, description=fault.description)
            for fault in refused.faults
        ],
        retry_after_ms=None if retry_after_s is None else round(retry_after_s * 1000),
    )


def _bad_request(faults: Sequence[FieldFault]) -> error_details_pb2.BadRequest:
    """The fields at fault, as many as a status holds."""
    bad = error_details_pb2.BadRequest()
    for fault in faults:
        bad.field_violations.add(
            field=_shortened(fault.field, _FIELD_BYTES_MAX),
            description=_shortened(fault.description, _FIELD_BYTES_MAX),
        )
        if bad.ByteSize() > _FIELDS_BYTES_MAX:
            del bad.field_violations[-1]
            break
    return bad


def _shortened(text: str, bytes_max: int) -> str:
    raw = text.encode(errors="replace")
    return text if len(raw) <= bytes_max else f"{raw[: bytes_max - 3].decode(errors='ignore')}..."


def _packed(message: Any) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _as_refusal(error: Exception) -> RequestRefusedError:
    if isinstance(error, RequestRefusedError):
        return error
    if isinstance(error, SupersededError):
        advice = "this coordinator has stopped leading; try again with the same request_id"
        return RequestRefusedError(error_pb2.ERROR_REASON_NOT_LEADER, advice)
    log.error("defect", exc_info=error)
    return RequestRefusedError(
        error_pb2.ERROR_REASON_INTERNAL,
        f"a defect of Mumian ({type(error).__name__}); its log has the details",
    )


def unary(
    method: Callable[[Any, Request, Context], Awaitable[Response]],
) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    """A unary method whose exceptions become refusals."""

    @functools.wraps(method)
    async def wrapped(self: Any, request: Request, context: Context) -> Response:
        try:
            return await method(self, request, context)
        except Exception as error:
            await abort(context, _as_refusal(error))

    return wrapped


def stream(
    method: Callable[[Any, Request, Context], AsyncIterator[Response]],
) -> Callable[[Any, Request, Context], AsyncIterator[Response]]:
    """A streaming method whose exceptions become refusals."""

    @functools.wraps(method)
    async def wrapped(self: Any, request: Request, context: Context) -> AsyncIterator[Response]:
        try:
            async for response in method(self, request, context):
                yield response
        except Exception as error:
            await abort(context, _as_refusal(error))

    return wrapped
