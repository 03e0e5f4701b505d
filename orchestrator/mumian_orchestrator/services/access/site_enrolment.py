"""How a site becomes one that may connect, stays so, and stops being so."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence

from mumian.agent.v1.enrolment_service_pb2 import SiteCertificate
from mumian.api.v1 import error_pb2
from mumian.api.v1.access_pb2 import EnrolledSite
from mumian.api.v1.fleet_pb2 import Site
from mumian.storage.v1.access_pb2 import StoredSite, StoredSiteToken

from mumian_orchestrator.domain import access_tokens
from mumian_orchestrator.domain.access_tokens import ID_BYTES, SECRET_BYTES
from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.domain.identity import Caller, Role
from mumian_orchestrator.domain.names import is_name
from mumian_orchestrator.ports.authority import Authority, BadCertificateError, Issued
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.store import Write
from mumian_orchestrator.services.access.audit_log import AuditLog
from mumian_orchestrator.services.commit_log import CommitLog

_SITE_TOKENS, _SITES = "access/site_tokens/", "access/sites/"
TOKEN_LIFETIME_S = 15 * 60
# A site that was cut off for longer has to join anew; so does one whose disk was found somewhere.
RENEWABLE_AFTER_EXPIRY_S = 30 * 86_400
_FORGOTTEN_AFTER_S = 86_400


class SiteEnrolment:
    """At most one key a site. A new one takes the old one's place, and ends its stream."""

    def __init__(
        self,
        authority: Authority | None,
        agents_door: str,
        audit: AuditLog,
        commit_log: CommitLog,
        clock: Clock,
    ) -> None:
        self._authority, self._agents_door = authority, agents_door
        self._audit, self._commit_log, self._clock = audit, commit_log, clock
        self._tokens: dict[str, StoredSiteToken] = {}
        self._sites: dict[str, StoredSite] = {}
        self.on_revoked: Callable[[str, str], None] = lambda _site_id, _why: None

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Take what is stored."""
        for key, value in stored.items():
            if key.startswith(_SITE_TOKENS):
                self._tokens[key.removeprefix(_SITE_TOKENS)] = StoredSiteToken.FromString(value)
            elif key.startswith(_SITES):
                self._sites[key.removeprefix(_SITES)] = StoredSite.FromString(value)

    async def create_token(self, caller: Caller, site_id: str, operator_id: str) -> tuple[str, int]:
        """A token by which one agent can join as this site, and when it expires (Unix time, s).

        Raises:
            RequestRefusedError: INVALID_FIELD or PERMISSION_DENIED.
        """
        authority = self._issuing()
        operator_id = operator_id or caller.operator_id
        names = (("site_id", site_id), ("operator_id", operator_id))
        if faults := [
            FieldFault(f, f"({v!r}) is no valid name; use a-z, 0-9 and -") for f, v in names if not is_name(v)
        ]:
            raise invalid(faults)
        known = self._sites.get(site_id)
        owner = known.site.operator_id if known else operator_id
        if not _is_of(caller, owner) or not _is_of(caller, operator_id):
            raise _not_yours(site_id)
        token_id, secret = secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES)
        expire_unix_s = self._clock.now().seconds + TOKEN_LIFETIME_S
        token = StoredSiteToken(
            id=token_id,
            secret_sha256=access_tokens.secret_sha256(secret),
            site_id=site_id,
            operator_id=operator_id,
        )
        token.expire_time.FromSeconds(expire_unix_s)
        writes = [Write(_SITE_TOKENS + token_id, token.SerializeToString()), *self._forget_old_tokens()]
        durable = self._commit_log.append(writes)
        self._tokens[token_id] = token
        await durable
        return access_tokens.site_token(site_id, token_id, secret, authority.sha256), expire_unix_s

    async def join(self, origin: str, text: str, request: bytes) -> SiteCertificate:
        """The first certificate of a site's key, once for each token; the same key gets the same one again.

        Raises:
            RequestRefusedError: JOIN_REFUSED or INVALID_FIELD; only the audit log has changed.
        """
        authority = self._issuing()
        token = self._token_of(origin, text)
        site_id = token.site_id
        if token.expire_time.seconds <= self._clock.now().seconds:
            raise self._refused(origin, f"the token for site {site_id} has expired; ask for a new one")
        try:
            key_sha256 = authority.key_of(request)
            if token.used_by_key_sha256 == key_sha256 and self._is_enrolled(site_id, key_sha256):
                # The answer was lost: the same again, when it is durable.
                await self._commit_log.append([])
                return self._told(self._sites[site_id])
            if token.used_by_key_sha256:
                why = f"the token for site {site_id} has been used, by another key"
                raise self._refused(origin, f"{why}; if that was not you, revoke the site")
            issued = authority.issue_for_site(site_id, request)
        except BadCertificateError as error:
            raise invalid([FieldFault("certificate_request", str(error))]) from None
        token.used_by_key_sha256 = key_sha256
        joined = self._stored(issued, EnrolledSite(site_id=site_id, operator_id=token.operator_id))
        joined.site.join_time.CopyFrom(self._clock.now())
        replaced = self._sites.get(site_id)
        about = {"site": site_id, "key_sha256": key_sha256, "token": token.id}
        if replaced is not None and replaced.site.key_sha256 != key_sha256:
            about["replaces_key_sha256"] = replaced.site.key_sha256
            self.on_revoked(site_id, "another key has joined as this site")
        durable = self._commit_log.append(
            [
                Write(_SITE_TOKENS + token.id, token.SerializeToString()),
                Write(_SITES + site_id, joined.SerializeToString()),
                *self._audit.writes(f"site {site_id}", origin, "EnrolmentService/Join", "done", about),
            ]
        )
        self._sites[site_id] = joined
        await durable
        return self._told(joined)

    async def renew(self, origin: str, site_id: str, request: bytes) -> SiteCertificate:
        """A fresh certificate for the key that has joined; within a quarter of its life the same again, so
        that who asks over and over does not fill the store.

        Raises:
            RequestRefusedError: SITE_REVOKED, JOIN_REFUSED or INVALID_FIELD.
        """
        authority = self._issuing()
        try:
            key_sha256 = authority.key_of(request)
            # Told before whether the site exists: to who has no key of it, no site does.
            if not self._has_key(site_id, key_sha256):
                raise self._refused(origin, "the key is of no site that has joined", "RenewCertificate")
            stored = self._sites[site_id]
            self.refuse_if_revoked(site_id, key_sha256)
            expired_s = self._clock.now().seconds - stored.site.certificate_expire_time.seconds
            if expired_s > RENEWABLE_AFTER_EXPIRY_S:
                why = f"the certificate of site {site_id} expired {expired_s // 86_400} days ago"
                raise self._refused(origin, f"{why}; join by a new token", "RenewCertificate")
            if self._is_fresh(stored):
                await self._commit_log.append([])
                return self._told(stored)
            issued = authority.issue_for_site(site_id, request)
        except BadCertificateError as error:
            raise invalid([FieldFault("certificate_request", str(error))]) from None
        renewed = self._stored(issued, stored.site)
        about = {"site": site_id, "key_sha256": key_sha256}
        durable = self._commit_log.append(
            [
                Write(_SITES + site_id, renewed.SerializeToString()),
                *self._audit.writes(
                    f"site {site_id}", origin, "EnrolmentService/RenewCertificate", "done", about
                ),
            ]
        )
        self._sites[site_id] = renewed
        await durable
        return self._told(renewed)

    def refuse_if_revoked(self, site_id: str, key_sha256: str) -> None:
        """Whether a certificate, good as such, is of a site that may connect.

        Raises:
            RequestRefusedError: SITE_REVOKED.
        """
        stored = self._sites.get(site_id)
        if stored is not None and stored.site.HasField("revoke_time"):
            why = "was revoked; an operator can make it a new token to join by"
        elif stored is not None and stored.site.key_sha256 != key_sha256:
            why = "has joined with another key since; if that was not you, tell its operator"
        elif stored is None and self._authority is not None and self._authority.can_issue:
            why = "has never joined here; an operator can make it a token to join by"
        else:
            return
        raise RequestRefusedError(error_pb2.ERROR_REASON_SITE_REVOKED, f"site {site_id} {why}")

    def check_claim(self, caller: Caller, origin: str, claimed: Site) -> None:
        """Whether an agent speaks for the site of its certificate, and for the operator that it joined under.

        Raises:
            RequestRefusedError: PERMISSION_DENIED.
        """
        if caller.is_local:
            return
        stored = self._sites.get(caller.site_id)
        operator_id = stored.site.operator_id if stored else ""
        if claimed.id != caller.site_id:
            why = f"the certificate is of site {caller.site_id}, and the agent says that it is another"
        elif operator_id and claimed.operator_id != operator_id:
            why = (
                f"site {caller.site_id} has joined for operator {operator_id}; write that in site.operator_id"
            )
        else:
            return
        self._audit.refused(caller.name, origin, "AgentService/Connect", why)
        raise RequestRefusedError(error_pb2.ERROR_REASON_PERMISSION_DENIED, why)

    def visible_to(self, caller: Caller) -> Sequence[EnrolledSite]:
        """The sites that the caller may see, in order of id."""
        sites = (self._sites[site_id].site for site_id in sorted(self._sites))
        sees_all = caller.roles & {Role.PLATFORM_ADMIN, Role.AUDITOR}
        return [site for site in sites if sees_all or _is_of(caller, site.operator_id)]

    async def revoke(self, caller: Caller, site_id: str) -> EnrolledSite:
        """Keep a site out from now on. It need not have joined: what is revoked is the name.

        Raises:
            RequestRefusedError: INVALID_FIELD or PERMISSION_DENIED.
        """
        if not is_name(site_id):
            raise invalid([FieldFault("site_id", f"({site_id!r}) is no valid name; use a-z, 0-9 and -")])
        stored = self._sites.get(site_id) or StoredSite(site=EnrolledSite(site_id=site_id))
        if not _is_of(caller, stored.site.operator_id):
            raise _not_yours(site_id)
        if not stored.site.HasField("revoke_time"):
            stored.site.revoke_time.CopyFrom(self._clock.now())
            self._sites[site_id] = stored
            unused = [t for t in self._tokens.values() if t.site_id == site_id]
            for token in unused:
                del self._tokens[token.id]
            durable = self._commit_log.append(
                [
                    Write(_SITES + site_id, stored.SerializeToString()),
                    *(Write(_SITE_TOKENS + token.id, None) for token in unused),
                ]
            )
            self.on_revoked(site_id, "the site was revoked")
            await durable
        return stored.site

    def _token_of(self, origin: str, text: str) -> StoredSiteToken:
        shown = access_tokens.parse_site_token(text)
        token = self._tokens.get(shown.id) if shown else None
        expected = token.secret_sha256 if token else bytes(32)
        if not access_tokens.matches(shown.secret if shown else "", expected) or token is None:
            raise self._refused(origin, "the token is not valid")
        return token

    def _refused(self, origin: str, why: str, action: str = "Join") -> RequestRefusedError:
        self._audit.refused("an agent", origin, f"EnrolmentService/{action}", why)
        return RequestRefusedError(error_pb2.ERROR_REASON_JOIN_REFUSED, why)

    def _issuing(self) -> Authority:
        if self._authority is None or not self._authority.can_issue:
            what = "access control is off" if self._authority is None else "its ca_key is kept elsewhere"
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_JOIN_REFUSED,
                f"this coordinator issues no certificates: {what}; docs/security.md says how to turn it on",
            )
        return self._authority

    def _is_fresh(self, stored: StoredSite) -> bool:
        issue_s, expire_s = stored.certificate_issue_time.seconds, stored.site.certificate_expire_time.seconds
        return self._clock.now().seconds < issue_s + (expire_s - issue_s) // 4

    def _has_key(self, site_id: str, key_sha256: str) -> bool:
        stored = self._sites.get(site_id)
        return stored is not None and stored.site.key_sha256 == key_sha256

    def _is_enrolled(self, site_id: str, key_sha256: str) -> bool:
        return self._has_key(site_id, key_sha256) and not self._sites[site_id].site.HasField("revoke_time")

    def _stored(self, issued: Issued, before: EnrolledSite) -> StoredSite:
        stored = StoredSite(site=before, certificate=issued.certificate)
        stored.site.key_sha256 = issued.key_sha256
        stored.certificate_issue_time.FromSeconds(issued.issue_unix_s)
        stored.site.certificate_expire_time.FromSeconds(issued.expire_unix_s)
        return stored

    def _told(self, stored: StoredSite) -> SiteCertificate:
        assert self._authority is not None
        return SiteCertificate(
            certificate=stored.certificate,
            authority=self._authority.pem,
            issue_time=stored.certificate_issue_time,
            expire_time=stored.site.certificate_expire_time,
            agents_door=self._agents_door,
        )

    def _forget_old_tokens(self) -> list[Write]:
        before_s = self._clock.now().seconds - _FORGOTTEN_AFTER_S
        old = [token.id for token in self._tokens.values() if token.expire_time.seconds < before_s][:50]
        for token_id in old:
            del self._tokens[token_id]
        return [Write(_SITE_TOKENS + token_id, None) for token_id in old]


def _is_of(caller: Caller, operator_id: str) -> bool:
    return Role.PLATFORM_ADMIN in caller.roles or (caller.operator_id == operator_id != "")


def _not_yours(site_id: str) -> RequestRefusedError:
    return RequestRefusedError(
        error_pb2.ERROR_REASON_PERMISSION_DENIED,
        f"site {site_id} is not of your operator; a platform admin may do this",
    )
