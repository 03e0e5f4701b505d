"""API tokens: made, shown once, stored as hashes, looked up at every call."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence

from mumian.api.v1 import access_pb2, error_pb2
from mumian.api.v1.access_pb2 import ApiToken
from mumian.storage.v1.access_pb2 import StoredApiToken

from mumian_orchestrator.domain import access_tokens
from mumian_orchestrator.domain.access_tokens import ID_BYTES, SECRET_BYTES
from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.domain.identity import TENANT_ROLES, Caller, Role, role_of
from mumian_orchestrator.domain.names import is_name
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.store import Write
from mumian_orchestrator.services.commit_log import CommitLog

_TOKENS = "access/api_tokens/"
LIFETIME_DEFAULT_S, LIFETIME_MAX_S = 90 * 86_400, 366 * 86_400
TITLE_LENGTH_MAX = 80
LIVE_OF_TENANT_MAX = 200
# Compared with where there is no such token, so that it takes as long as with one.
_NO_SECRET_SHA256 = bytes(32)


class ApiTokens:
    """All tokens; those that are revoked or expired are kept, so that the list can tell of them."""

    def __init__(self, commit_log: CommitLog, clock: Clock) -> None:
        self._commit_log, self._clock = commit_log, clock
        self._tokens: dict[str, StoredApiToken] = {}
        self.on_revoked: Callable[[str], None] = lambda _: None

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Take what is stored."""
        for key, value in stored.items():
            if key.startswith(_TOKENS):
                self._tokens[key.removeprefix(_TOKENS)] = StoredApiToken.FromString(value)

    def caller(self, text: str) -> Caller:
        """Whom a token stands for.

        Raises:
            RequestRefusedError: UNAUTHENTICATED.
        """
        shown = access_tokens.parse_api_token(text)
        stored = self._tokens.get(shown.id) if shown else None
        expected = stored.secret_sha256 if stored else _NO_SECRET_SHA256
        if not access_tokens.matches(shown.secret if shown else "", expected) or stored is None:
            raise unauthenticated("the token is not valid")
        token = stored.token
        if token.HasField("revoke_time"):
            raise unauthenticated(f"the token {token.id} was revoked")
        if token.expire_time.seconds <= self._clock.now().seconds:
            raise unauthenticated(f"the token {token.id} has expired")
        role = role_of(token.role)
        return Caller(
            name=f"token {token.id} ({token.title})",
            roles=frozenset({role}) if role else frozenset(),
            tenant_id=token.tenant_id,
            operator_id=token.operator_id,
            credential_id=token.id,
            expire_unix_s=token.expire_time.seconds,
        )

    async def create(self, caller: Caller, wanted: ApiToken, lifetime_s: int) -> tuple[ApiToken, str]:
        """A new token and its secret, which nobody can have a second time.

        Args:
            wanted: its title, role, tenant (default: the caller's) and operator.

        Raises:
            RequestRefusedError: INVALID_FIELD or PERMISSION_DENIED.
        """
        if role_of(wanted.role) in TENANT_ROLES and not wanted.tenant_id:
            wanted.tenant_id = caller.tenant_id
        self._check(caller, wanted, lifetime_s)
        token_id, secret = secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES)
        token = ApiToken(
            id=token_id,
            title=wanted.title,
            role=wanted.role,
            tenant_id=wanted.tenant_id,
            operator_id=wanted.operator_id,
            create_time=self._clock.now(),
            created_by=caller.name,
        )
        token.expire_time.FromSeconds(token.create_time.seconds + (lifetime_s or LIFETIME_DEFAULT_S))
        stored = StoredApiToken(token=token, secret_sha256=access_tokens.secret_sha256(secret))
        durable = self._put(stored)
        self._tokens[token_id] = stored
        await durable
        return token, access_tokens.api_token(token_id, secret)

    def manageable_by(self, caller: Caller) -> Sequence[ApiToken]:
        """The tokens that the caller may manage, in order of id."""
        tokens = (self._tokens[token_id].token for token_id in sorted(self._tokens))
        return [token for token in tokens if _may_manage(caller, token)]

    async def revoke(self, caller: Caller, token_id: str) -> ApiToken:
        """End a token now; one that has been revoked stays as it was.

        Raises:
            RequestRefusedError: TOKEN_NOT_FOUND.
        """
        stored = self._tokens.get(token_id)
        if stored is None or not _may_manage(caller, stored.token):
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_TOKEN_NOT_FOUND,
                f"token ({token_id}) does not exist; `mumian-coordinator token list` lists those that do",
            )
        if not stored.token.HasField("revoke_time"):
            stored.token.revoke_time.CopyFrom(self._clock.now())
            self.on_revoked(token_id)
            await self._put(stored)
        return stored.token

    def _put(self, stored: StoredApiToken) -> asyncio.Future[None]:
        return self._commit_log.append([Write(_TOKENS + stored.token.id, stored.SerializeToString())])

    def _check(self, caller: Caller, wanted: ApiToken, lifetime_s: int) -> None:
        faults = []
        role = role_of(wanted.role)
        if role is None:
            faults.append(FieldFault("role", f"is missing; use one of {', '.join(Role)}"))
        if not 0 < len(wanted.title) <= TITLE_LENGTH_MAX or not wanted.title.isprintable():
            faults.append(FieldFault("title", f"must be 1 to {TITLE_LENGTH_MAX} printable characters"))
        for field, value, needed in (
            ("tenant_id", wanted.tenant_id, role in TENANT_ROLES),
            ("operator_id", wanted.operator_id, role is Role.OPERATOR),
        ):
            if needed and not is_name(value):
                faults.append(FieldFault(field, f"({value!r}) is no valid name, and {role} needs one"))
            elif value and not needed:
                faults.append(FieldFault(field, f"({value}) goes with no {role}; leave it out"))
        if lifetime_s > LIFETIME_MAX_S:
            faults.append(
                FieldFault("lifetime_s", f"({lifetime_s}) must be at most {LIFETIME_MAX_S}, a year")
            )
        if faults:
            raise invalid(faults)
        if not _may_manage(caller, wanted):
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_PERMISSION_DENIED,
                f"a tenant's admin makes tokens of its own tenant ({caller.tenant_id}) and no others",
            )
        now_s = self._clock.now().seconds
        live = [
            t for t in self.manageable_by(caller) if t.tenant_id == wanted.tenant_id and _is_live(t, now_s)
        ]
        if wanted.tenant_id and len(live) >= LIVE_OF_TENANT_MAX:
            limit = f"({wanted.tenant_id}) has {len(live)} live tokens, and at most {LIVE_OF_TENANT_MAX} go"
            raise invalid([FieldFault("tenant_id", f"{limit}; revoke some first")])


def unauthenticated(why: str) -> RequestRefusedError:
    """The refusal of a caller that has not proved who it is."""
    return RequestRefusedError(error_pb2.ERROR_REASON_UNAUTHENTICATED, why)


def _may_manage(caller: Caller, token: ApiToken) -> bool:
    if Role.PLATFORM_ADMIN in caller.roles:
        return True
    is_tenants = token.role in (access_pb2.ROLE_TENANT_ADMIN, access_pb2.ROLE_TENANT_USER)
    return is_tenants and token.tenant_id == caller.tenant_id


def _is_live(token: ApiToken, now_s: int) -> bool:
    return not token.HasField("revoke_time") and token.expire_time.seconds > now_s
