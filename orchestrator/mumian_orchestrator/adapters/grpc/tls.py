"""gRPC's view of certificates: servers that take new ones up without a restart, and clients of servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import grpc

from mumian_orchestrator.adapters.grpc.errors import Context

# What a follower adds to a call that it passes on: that it does, for a call is forwarded once (a leader's
# name that is out of date could send it in circles); what its caller has shown on the connection; from where.
FORWARDED = "mumian-forwarded"
FORWARDED_CERTIFICATE, FORWARDED_PEER = "mumian-forwarded-certificate-bin", "mumian-forwarded-peer"


class KeyPair(Protocol):
    """A private key with its chain of certificates, in PEM."""

    @property
    def key(self) -> bytes: ...

    @property
    def chain(self) -> bytes: ...


KeyPairs = Callable[[], KeyPair]


def server_credentials(pairs: KeyPairs, clients_authority: bytes | None) -> grpc.ServerCredentials:
    """What a door serves with; the newest pair counts for each new connection.

    Args:
        clients_authority: who has to have issued the certificate that every client must show; None: clients
            are asked for none.
    """
    served = pairs()

    def configuration(pair: KeyPair) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], clients_authority)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        newest = pairs()
        if newest is served:
            return None
        served = newest
        return configuration(newest)

    # It may answer None, for no change; the stubs do not say so.
    fetcher: Any = changed
    return grpc.dynamic_ssl_server_credentials(
        configuration(served), fetcher, require_client_authentication=clients_authority is not None
    )


def peer_certificate(context: Context) -> bytes:
    """The certificate (PEM) that a client has shown on the agents' door; empty where it has shown none."""
    shown = context.auth_context() or {}
    return bytes(next(iter(shown.get("x509_pem_cert", ())), b""))


def client_credentials(authority: bytes, pair: KeyPair) -> grpc.ChannelCredentials:
    """What a coordinator, or a command on its machine, asks a coordinator with."""
    return grpc.ssl_channel_credentials(authority, pair.key, pair.chain)
