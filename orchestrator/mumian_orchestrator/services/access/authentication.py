"""Who a caller is, by what it shows: a certificate, or a token of ours or of an identity provider."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mumian.api.v1 import error_pb2

from mumian_orchestrator.domain.access_tokens import API_TOKEN_PREFIX
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.identity import (
    CONSOLE_IDENTITY,
    COORDINATOR_IDENTITY,
    NOBODY,
    SITE_IDENTITY,
    TENANT_ROLES,
    Caller,
    Role,
)
from mumian_orchestrator.domain.names import is_name
from mumian_orchestrator.ports.authority import Authority, BadCertificateError, PeerCertificate
from mumian_orchestrator.ports.identity_provider import (
    BadTokenError,
    IdentityProvider,
    ProviderUnavailableError,
)
from mumian_orchestrator.services.access.api_tokens import ApiTokens, unauthenticated
from mumian_orchestrator.services.access.site_enrolment import SiteEnrolment

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """What comes with a call. What is forwarded counts only from a coordinator, which has checked it."""

    bearer: str = ""
    certificate: bytes = b""  # PEM; of the connection, so its key is there
    forwarded_certificate: bytes = b""
    is_forwarded: bool = False


@dataclass(frozen=True, slots=True)
class ClaimMapping:
    """Which claims of an identity provider say what Mumian needs to know."""

    tenant_claim: str = "mumian_tenant"
    operator_claim: str = "mumian_operator"
    roles_claim: str = "mumian_roles"  # one, or a list
    roles: Mapping[str, Role] = field(default_factory=lambda: {str(role): role for role in Role})

    def caller(self, claims: Mapping[str, Any]) -> Caller:
        """Whom the claims describe. A role without the tenant or operator that it needs is dropped."""
        given = claims.get(self.roles_claim, ())
        names: Iterable[object] = (
            [given] if isinstance(given, str) else given if isinstance(given, list) else ()
        )
        roles = {self.roles[name] for name in names if isinstance(name, str) and name in self.roles}
        tenant_id, operator_id = _name(claims, self.tenant_claim), _name(claims, self.operator_claim)
        if not tenant_id:
            roles -= TENANT_ROLES
        if not operator_id:
            roles -= {Role.OPERATOR}
        subject = f"{claims.get('iss', '')}#{claims.get('sub', '')}"
        return Caller(
            name=f"person {subject}",
            roles=frozenset(roles),
            tenant_id=tenant_id if roles & TENANT_ROLES else "",
            operator_id=operator_id if Role.OPERATOR in roles else "",
            credential_id=subject,
            expire_unix_s=float(claims["exp"]),
        )


class Authentication:
    """The ways to prove who one is. No failure tells a caller more than it knows."""

    def __init__(
        self,
        authority: Authority,
        tokens: ApiTokens,
        sites: SiteEnrolment,
        provider: IdentityProvider | None,
        mapping: ClaimMapping,
    ) -> None:
        self._authority, self._tokens, self._sites = authority, tokens, sites
        self._provider, self._mapping = provider, mapping

    async def caller(self, shown: Shown) -> Caller:
        """Who has shown this; NOBODY where nothing was shown.

        Raises:
            RequestRefusedError: UNAUTHENTICATED or SITE_REVOKED.
        """
        peer = self._read(shown.certificate) if shown.certificate else None
        if peer is not None and peer.identity == COORDINATOR_IDENTITY:
            if not shown.is_forwarded:
                # A command on its machine, where the authority's key is kept elsewhere.
                return _console("coordinator", peer)
            # It asks in somebody's name, which it has from the certificate or the token of that one.
            peer = self._read(shown.forwarded_certificate) if shown.forwarded_certificate else None
        elif shown.forwarded_certificate:
            raise unauthenticated("only coordinators may forward certificates")
        if peer is not None:
            return self._holder_of(peer)
        return await self._bearer(shown.bearer) if shown.bearer else NOBODY

    def speaks_for_others(self, shown: Shown) -> bool:
        """Whether the call comes by another coordinator."""
        try:
            return bool(shown.certificate) and self._read(shown.certificate).identity == COORDINATOR_IDENTITY
        except RequestRefusedError:
            return False

    def _read(self, certificate: bytes) -> PeerCertificate:
        try:
            return self._authority.read(certificate)
        except BadCertificateError as error:
            raise unauthenticated(f"the certificate is not valid: {error}") from None

    def _holder_of(self, peer: PeerCertificate) -> Caller:
        if peer.identity.startswith(SITE_IDENTITY):
            site_id = peer.identity.removeprefix(SITE_IDENTITY)
            self._sites.refuse_if_revoked(site_id, peer.key_sha256)
            return Caller(
                name=f"site {site_id}",
                site_id=site_id,
                credential_id=peer.identity,
                expire_unix_s=peer.expire_unix_s,
            )
        if peer.identity.startswith(CONSOLE_IDENTITY):
            return _console(peer.identity.removeprefix(CONSOLE_IDENTITY), peer)
        raise unauthenticated(f"the certificate's identity ({peer.identity}) is nobody's")

    async def _bearer(self, token: str) -> Caller:
        if token.startswith(API_TOKEN_PREFIX) or self._provider is None:
            return self._tokens.caller(token)
        try:
            return self._mapping.caller(await self._provider.claims(token))
        except BadTokenError as error:
            log.info("a token of the identity provider was refused: %s", error)
            raise unauthenticated("the token is not valid") from None
        except ProviderUnavailableError as error:
            log.warning("the identity provider's keys cannot be had: %s", error)
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_STORE_UNAVAILABLE,
                "the identity provider does not answer, so the token cannot be checked; try again",
            ) from None


def _console(user: str, peer: PeerCertificate) -> Caller:
    return Caller(
        name=f"console {user}",
        roles=frozenset({Role.PLATFORM_ADMIN}),
        credential_id=peer.identity,
        expire_unix_s=peer.expire_unix_s,
    )


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim, "")
    return value if isinstance(value, str) and is_name(value) else ""
