"""Connections to coordinators: by the certificate of the site where it has joined, else without TLS."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from mumian_agent.runtime.certificates import Certificates


def open_channel(
    address: str, certificates: Certificates, options: Sequence[tuple[str, int]]
) -> grpc.aio.Channel:
    """A new connection, with the newest certificate that there is."""
    proof = certificates.proof()
    if proof is None:
        return grpc.aio.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(proof.authority, proof.key, proof.certificate)
    return grpc.aio.secure_channel(address, credentials, options=options)
