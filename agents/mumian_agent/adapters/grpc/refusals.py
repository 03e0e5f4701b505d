"""Why a coordinator refuses a call."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2, status_pb2


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The stable reason of a refusal, as `SITE_ID_TAKEN`; empty where the call broke off."""
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        assert isinstance(value, bytes)
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                return str(info.reason)
    return ""
