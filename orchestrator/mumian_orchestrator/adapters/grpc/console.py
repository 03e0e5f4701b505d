"""Calls from a command on a coordinator's own machine, by a certificate that it has made itself."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from mumian.api.v1 import access_service_pb2 as pb
from mumian.api.v1.access_service_pb2_grpc import AccessServiceStub
from mumian.errors import from_rpc_error

from mumian_orchestrator.adapters.grpc.tls import KeyPair, client_credentials

_ANSWERED_WITHIN_S = 15.0
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 * 1024 * 1024))


class Console:
    """A connection to the access service of the coordinator at `address` (host:port)."""

    def __init__(self, address: str, authority: bytes, pair: KeyPair | None) -> None:
        """Without a pair: without TLS."""
        self._address = address
        if pair is None:
            self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        else:
            credentials = client_credentials(authority, pair)
            self._channel = grpc.secure_channel(address, credentials, options=_OPTIONS)
        self._stub = AccessServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def call(self, method: str, request: Any) -> Any:
        """The answer.

        Raises:
            MumianError: there is none, or it is a refusal.
        """
        try:
            return getattr(self._stub, method)(request, timeout=_ANSWERED_WITHIN_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._address) from None

    def audit_log(self) -> Sequence[pb.ReadAuditLogResponse]:
        """All answers to the question for the audit log; the last one has its head.

        Raises:
            MumianError: as above.
        """
        try:
            return list(self._stub.ReadAuditLog(pb.ReadAuditLogRequest(), timeout=_ANSWERED_WITHIN_S))
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._address) from None
