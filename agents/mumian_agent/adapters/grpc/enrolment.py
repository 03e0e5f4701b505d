"""Joining and renewing: calls on people's door, made only after the coordinator has proved what it is."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Sequence

import grpc
from mumian.agent.v1 import enrolment_service_pb2 as pb
from mumian.agent.v1.enrolment_service_pb2_grpc import EnrolmentServiceStub
from mumian.errors import from_rpc_error

from mumian_agent.domain.fields import host_and_port
from mumian_agent.domain.site_token import SiteToken

_CONNECTED_WITHIN_S, _ANSWERED_WITHIN_S = 5.0, 15.0
_OPTIONS = (("grpc.enable_http_proxy", 0),)


class JoinError(Exception):
    """The site has not joined, and why."""


def join(address: str, token: SiteToken, request: bytes) -> pb.SiteCertificate:
    """Show the token to the coordinator that it is of, and to no other.

    Raises:
        JoinError: it is another, does not answer, or refuses.
    """
    authority = _authority_at(address, token.authority_sha256)
    credentials = grpc.ssl_channel_credentials(authority)
    with grpc.secure_channel(address, credentials, options=_OPTIONS) as channel:
        message = pb.JoinRequest(token=token.text, certificate_request=request)
        try:
            return EnrolmentServiceStub(channel).Join(message, timeout=_ANSWERED_WITHIN_S).certificate
        except grpc.RpcError as error:
            raise JoinError(str(from_rpc_error(error, address))) from None


async def renew(
    addresses: Sequence[str], authority: bytes, site_id: str, request: bytes
) -> pb.SiteCertificate:
    """A fresh certificate for the site's key, from the first coordinator that gives one.

    Raises:
        JoinError: none does.
    """
    credentials, refusals = grpc.ssl_channel_credentials(authority), []
    for address in addresses:
        async with grpc.aio.secure_channel(address, credentials, options=_OPTIONS) as channel:
            message = pb.RenewCertificateRequest(site_id=site_id, certificate_request=request)
            try:
                stub = EnrolmentServiceStub(channel)
                return (await stub.RenewCertificate(message, timeout=_ANSWERED_WITHIN_S)).certificate
            except grpc.aio.AioRpcError as error:
                refusals.append(from_rpc_error(error, address))
    raise JoinError("; ".join(str(refusal) for refusal in refusals) or "no coordinator is known")


def _authority_at(address: str, sha256: str) -> bytes:
    """The certificate of the authority that the token knows by its hash, as the coordinator shows it.

    Nothing is sent yet, and what comes is believed only by the hash.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, port = host_and_port(address)
    try:
        with (
            socket.create_connection((host, port), _CONNECTED_WITHIN_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            chain = _chain_of(connection)
    except OSError as error:
        raise JoinError(f"no TLS with the coordinator at {address}: {error.strerror or error}") from None
    for certificate in chain:
        if hashlib.sha256(certificate).hexdigest() == sha256:
            return ssl.DER_cert_to_PEM_cert(certificate).encode()
    raise JoinError(
        f"what answers at {address} is not of the authority that the token is of (SHA-256 {sha256}): another "
        "platform, or somebody in between. The token was not sent; check the address"
    )


def _chain_of(connection: ssl.SSLSocket) -> list[bytes]:
    """The certificates that the other side has shown (DER)."""
    if hasattr(connection, "get_unverified_chain"):  # Python 3.13
        return list(connection.get_unverified_chain())
    import _ssl

    shown = connection._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return [certificate.public_bytes(_ssl.ENCODING_DER) for certificate in shown or ()]
