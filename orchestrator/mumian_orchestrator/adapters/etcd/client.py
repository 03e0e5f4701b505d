"""Calls to etcd's gRPC API: short attempts, nothing left open, another member when one does not answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from mumian_orchestrator.adapters.etcd.messages import stubs
from mumian_orchestrator.ports.key_value import NoAnswerError, NoSpaceError

# A timed-out write may still happen later, so attempts are short and every write is safe to repeat.
ATTEMPT_S = 0.5
_MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_CHANNEL_OPTIONS = (
    # etcd ends the connections of clients that ping more than every 5 s, or while they ask for nothing. What
    # is sent and not acknowledged within a second ends the connection too, so a busy one breaks sooner.
    ("grpc.keepalive_time_ms", 6000),
    ("grpc.keepalive_timeout_ms", 1000),
    # Of gRPC's own pings: while one is out no keepalive is sent, and by default it is waited for a minute.
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # Also the connect timeout: below a second a slow machine never connects.
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
)
# The member is away, cut off from the others, overloaded or going down; what was asked may be asked again.
_NO_ANSWER = {
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
}
_NO_SPACE = "database space exceeded"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What both sides of a TLS connection prove themselves by, in PEM: etcd's authority, and our own."""

    ca: bytes
    certificate: bytes
    key: bytes


class Member:
    """One member of the cluster, with the stubs of its services."""

    def __init__(self, endpoint: str, credentials: Credentials | None) -> None:
        self.endpoint = endpoint
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
        else:
            tls = grpc.ssl_channel_credentials(credentials.ca, credentials.key, credentials.certificate)
            self.channel = grpc.aio.secure_channel(endpoint, tls, options=_CHANNEL_OPTIONS)
        self.kv = stubs.KVStub(self.channel)
        self.lease = stubs.LeaseStub(self.channel)
        self.watch = stubs.WatchStub(self.channel)
        self.maintenance = stubs.MaintenanceStub(self.channel)


class EtcdClient:
    """One channel to each member (host:port); calls go to one of them for as long as it answers.

    Args:
        attempt_s: how long one call waits for its answer.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        credentials: Credentials | None = None,
        attempt_s: float = ATTEMPT_S,
    ) -> None:
        self.members = [Member(endpoint, credentials) for endpoint in endpoints]
        self.attempt_s = attempt_s
        self._preferred = 0

    async def close(self) -> None:
        """End every call and the channels."""
        for member in self.members:
            await member.channel.close()

    @property
    def member(self) -> Member:
        """The member to ask now."""
        return self.members[self._preferred]

    async def ask(self, method: Callable[[Member], Any], request: object, patience: float = 1) -> Any:
        """One attempt of a unary call; a patience of 10 waits ten times as long as others.

        Raises:
            NoAnswerError: it may have happened, or may still happen; the next attempt asks another member.
            NoSpaceError: the store is full.
            grpc.aio.AioRpcError: etcd refuses the request as such.
        """
        member = self.member
        try:
            return await method(member)(request, timeout=patience * self.attempt_s)
        except grpc.aio.AioRpcError as error:
            raise self.failure(member, error) from None

    def failure(self, member: Member, error: grpc.aio.AioRpcError) -> Exception:
        """What a failed call means; a member that does not answer is asked no more for now."""
        if _NO_SPACE in (error.details() or ""):
            return NoSpaceError(f"etcd {member.endpoint} is full: its NOSPACE alarm is raised")
        if error.code() in _NO_ANSWER:
            if member is self.member:
                self._preferred = (self._preferred + 1) % len(self.members)
            return NoAnswerError(f"etcd {member.endpoint}: {reason_of(error)}")
        return error


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Why a call failed, without gRPC's preamble."""
    details = error.details() or error.code().name
    return details.rsplit("last error: ", 1)[-1].rsplit("Failed to connect to remote host: ", 1)[-1]
