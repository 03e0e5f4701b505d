"""Why a coordinator refuses a call."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The stable reason of a refusal, as `SITE_ID_TAKEN`; empty where the call broke off."""
    info = error_details_pb2.ErrorInfo()
    return next((str(info.reason) for detail in _details(error) if detail.Unpack(info)), "")


def retry_after_s(error: grpc.aio.AioRpcError) -> float | None:
    """When to try again, where the refusal says it."""
    retry = error_details_pb2.RetryInfo()
    told = (retry.retry_delay for detail in _details(error) if detail.Unpack(retry))
    return next((delay.ToMilliseconds() / 1000 for delay in told), None)


def _details(error: grpc.aio.AioRpcError) -> Iterator[Any]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            yield from status_pb2.Status.FromString(value).details
