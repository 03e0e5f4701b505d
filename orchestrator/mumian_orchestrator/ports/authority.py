"""The authority that certificates of coordinators and agents come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, with the hash of the key that it is for."""

    certificate: bytes  # PEM
    key_sha256: str
    issue_unix_s: int
    expire_unix_s: int


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What a good certificate says: an identity as a SPIFFE id ("spiffe://mumian/site/gz"), and its key."""

    identity: str
    key_sha256: str
    expire_unix_s: int


class BadCertificateError(Exception):
    """A certificate or a request that cannot be taken, and why."""


class Authority(Protocol):
    """Issues and reads certificates."""

    @property
    def can_issue(self) -> bool:
        """Whether it has the key; an external one may keep it elsewhere."""

    @property
    def pem(self) -> bytes:
        """Its own certificates."""

    @property
    def sha256(self) -> str:
        """Of the certificate (DER) that issues, hexadecimal: what an agent knows it by before it joins."""

    def key_of(self, request: bytes) -> str:
        """The hash of the public key that a request (PKCS #10, DER) is made and signed by.

        Raises:
            BadCertificateError: it is none, or its signature is not its key's.
        """

    def issue_for_site(self, site_id: str, request: bytes) -> Issued:
        """A certificate for the agent of a site. Of the request only the key is taken.

        Raises:
            BadCertificateError: as above.
        """

    def read(self, certificate: bytes) -> PeerCertificate:
        """What a certificate (PEM) says.

        Raises:
            BadCertificateError: another authority issued it, it is not valid now, or names nobody.
        """
