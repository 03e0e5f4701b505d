"""How a client reaches its coordinators: addresses, tenant, channel options, and when it tries again."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from mumian import names
from mumian.errors import COORDINATOR_VARIABLE, MumianError, from_rpc_error, invalid_field, message_too_large

COORDINATOR_DEFAULT = "127.0.0.1:7070"
TENANT_DEFAULT = "default"
TENANT_VARIABLE = "MUMIAN_TENANT"
TENANT_METADATA = "mumian-tenant"
TOKEN_VARIABLE, TOKEN_FILE_VARIABLE, CA_VARIABLE = "MUMIAN_TOKEN", "MUMIAN_TOKEN_FILE", "MUMIAN_CA"
REQUEST_BYTES_MAX = 4 * 1024 * 1024  # the coordinator takes no more
RESPONSE_BYTES_MAX = 64 * 1024 * 1024

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_LOOPBACK = ("127.", "localhost:", "[::1]:")
# Nothing is half done after these: the same request may be sent again.
_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
_RETRIED = frozenset({"CLIENT_UNREACHABLE", "NOT_LEADER", "STORE_UNAVAILABLE"})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_SPREAD = 1.5


@dataclass(frozen=True, slots=True)
class Connection:
    """Where to and as whom. Any coordinator will do: one that does not lead asks the one that does.

    `timeout_s` bounds a call with all its tries; `connect_timeout_s` bounds it while no coordinator has
    ever answered, because then there most likely is none.
    """

    addresses: tuple[str, ...]
    tenant: str  # empty: the token's
    timeout_s: float
    connect_timeout_s: float
    token: str = field(default="", repr=False)
    ca: bytes = b""  # PEM; empty: the system's authorities
    # What a command on a coordinator's own machine shows instead of a token, in PEM.
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)

    @classmethod
    def resolve(
        cls,
        coordinator: str | None,
        tenant: str | None,
        timeout_s: float,
        connect_timeout_s: float,
        token: str | None = None,
        token_file: str | Path | None = None,
        ca_file: str | Path | None = None,
    ) -> Connection:
        """Arguments first, then the environment, then the defaults.

        Raises:
            MumianError: INVALID_FIELD.
        """
        given = coordinator or os.environ.get(COORDINATOR_VARIABLE) or COORDINATOR_DEFAULT
        addresses = tuple(address.strip() for address in given.split(","))
        for address in addresses:
            match = _ADDRESS.fullmatch(address)
            if match is None or not 0 < int(match[2]) <= 65535:
                raise invalid_field(
                    "coordinator", f"({address!r}) must be host:port, such as {COORDINATOR_DEFAULT}"
                )
        if not token and not token_file:
            token, token_file = os.environ.get(TOKEN_VARIABLE), os.environ.get(TOKEN_FILE_VARIABLE)
        if not token:
            token = _token_of(Path(token_file)) if token_file else ""
        if not token.isascii() or not token.isprintable():
            raise invalid_field("token", "has characters that no token has; copy it again")
        tenant = tenant or os.environ.get(TENANT_VARIABLE) or ("" if token else TENANT_DEFAULT)
        try:
            names.name(tenant or TENANT_DEFAULT)
        except ValueError as error:
            raise invalid_field("tenant", f"({tenant!r}) {error}") from None
        ca_file = ca_file or os.environ.get(CA_VARIABLE)
        ca = _authority_of(Path(ca_file)) if ca_file else b""
        return cls(addresses, tenant, timeout_s, connect_timeout_s, token, ca)

    @property
    def address(self) -> str:
        """Where the coordinators are, in words."""
        return ", ".join(self.addresses)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        tenant = ((TENANT_METADATA, self.tenant),) if self.tenant else ()
        return (*tenant, ("authorization", f"Bearer {self.token}")) if self.token else tenant

    def credentials(self, address: str) -> grpc.ChannelCredentials | None:
        """What TLS to an address takes; None: there is none, which only goes within this machine."""
        if not self.ca and address.startswith(_LOOPBACK):
            return None
        if self.certificate:
            return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)
        return grpc.ssl_channel_credentials(self.ca or None)

    def options(self, address: str) -> list[tuple[str, int]]:
        """Channel options: a silent partition is noticed within ten seconds, a restart within one."""
        options = [
            ("grpc.max_receive_message_length", RESPONSE_BYTES_MAX),
            ("grpc.keepalive_time_ms", 5000),
            ("grpc.keepalive_timeout_ms", 3000),
            # While one of gRPC's own pings is out no keepalive is sent; by default it is awaited a minute.
            ("grpc.http2.ping_timeout_ms", 3000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 200),
            # It is the time that one attempt to connect may take, too.
            ("grpc.min_reconnect_backoff_ms", 1000),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_retries", 0),
        ]
        if address.startswith(_LOOPBACK):
            options.append(("grpc.enable_http_proxy", 0))
        return options


def _token_of(file: Path) -> str:
    """The token in a file that nobody else can read.

    Raises:
        MumianError: INVALID_FIELD.
    """
    try:
        if file.stat().st_mode & 0o077:
            raise invalid_field("token_file", f"({file}) can be read by others; `chmod 600 {file}`")
        if token := file.read_text(encoding="ascii").strip():
            return token
        raise invalid_field("token_file", f"({file}) is empty; put the token into it")
    except OSError as error:
        raise invalid_field("token_file", f"({file}) cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise invalid_field("token_file", f"({file}) holds no token") from None


def _authority_of(file: Path) -> bytes:
    try:
        ca = file.read_bytes()
    except OSError as error:
        raise invalid_field("ca", f"({file}) cannot be read: {error.strerror}") from None
    if b"-----BEGIN CERTIFICATE" not in ca:
        raise invalid_field("ca", f"({file}) is no PEM file of certificates")
    return ca


Channel = TypeVar("Channel", grpc.Channel, grpc.aio.Channel)


class Endpoints(Generic[Channel]):
    """The channels to the coordinators, each opened when it is needed; one is in use until it fails."""

    def __init__(
        self, connection: Connection, open_channel: Callable[[str, Sequence[tuple[str, int]]], Channel]
    ) -> None:
        self._connection = connection
        self._open: Callable[[str, Sequence[tuple[str, int]]], Channel] = open_channel
        self._channels: dict[str, Channel] = {}
        self._number = 0

    @property
    def channel(self) -> Channel:
        """To the coordinator in use."""
        address = self._connection.addresses[self._number]
        if address not in self._channels:
            self._channels[address] = self._open(address, self._connection.options(address))
        return self._channels[address]

    def move_on(self) -> None:
        """The one in use has failed: use the next."""
        self._number = (self._number + 1) % len(self._connection.addresses)

    def all(self) -> Sequence[Channel]:
        """Those that have been opened."""
        return tuple(self._channels.values())


class Attempts:
    """The tries of one call: how long each may take, and how long to wait before the next."""

    def __init__(self, connection: Connection, *, answered: bool) -> None:
        self._connection = connection
        self._answered = answered
        self._pause_s = _FIRST_PAUSE_S
        self._start_s = time.monotonic()
        self._told: MumianError | None = None  # by the coordinator, when it refused an earlier try
        self.is_to_stay = False  # whether the next try had best ask the same coordinator: it takes over

    def check(self, request: Message) -> None:
        """Refuse what the coordinator would refuse for its size.

        Raises:
            MumianError: MESSAGE_TOO_LARGE.
        """
        size_bytes = request.ByteSize()
        if size_bytes > REQUEST_BYTES_MAX:
            raise message_too_large(size_bytes, REQUEST_BYTES_MAX)

    def timeout_s(self) -> float:
        """What is left for the next try."""
        return max(0.0, self._connection.timeout_s - (time.monotonic() - self._start_s))

    def pause_after_s(self, error: grpc.RpcError) -> float:
        """How long to wait before the next try.

        Raises:
            MumianError: there is to be none.
        """
        refused = from_rpc_error(error, self._connection.address)
        if refused.reason != "CLIENT_UNREACHABLE":
            self._told = refused
        elif self._told and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise self._told from None  # it is there, and has said what is wrong
        self.is_to_stay = refused.reason == "NOT_LEADER" and refused.retry_after_s is not None
        has_answered = self._answered or self._told is not None  # maybe one of the others
        unknown = refused.reason == "CLIENT_UNREACHABLE" and not has_answered
        patience_s = self._connection.connect_timeout_s if unknown else self._connection.timeout_s
        pause_s = self._pause_s * random.uniform(0.8, 1.2)
        if refused.retry_after_s is not None:
            # Not before it was told, and not together with all others that were told the same.
            pause_s = max(pause_s, refused.retry_after_s * random.uniform(1, _SPREAD))
        gone_s = time.monotonic() - self._start_s
        is_away = error.code() in _AWAY and refused.reason in _RETRIED
        retried = is_away or refused.retry_after_s is not None
        if not retried or gone_s + pause_s >= patience_s:
            raise refused from None
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause_s

    def pause_after_break_s(self, error: grpc.RpcError, *, worked: bool, resumable: bool) -> float:
        """The same for a stream; one that had worked may have been quiet for long, so its time starts anew.

        Raises:
            MumianError: there is to be no other try.
        """
        if worked and not resumable:
            raise from_rpc_error(error, self._connection.address) from None
        if worked:
            self._answered, self._pause_s, self._start_s = True, _FIRST_PAUSE_S, time.monotonic()
        return self.pause_after_s(error)


def no_end_in_time(job_id: str, timeout_s: float | None) -> TimeoutError:
    """What `wait` and `watch` raise when the caller's time is up."""
    return TimeoutError(f"job {job_id} has not ended within {timeout_s} s")
