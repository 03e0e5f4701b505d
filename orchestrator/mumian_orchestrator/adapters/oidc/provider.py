"""An OpenID Connect provider: its signed tokens, checked against the keys that it publishes."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
import urllib.request
from collections.abc import Mapping
from typing import Any

import jwt

from mumian_orchestrator.ports.identity_provider import (
    BadTokenError,
    ProviderUnavailableError,
    is_trustworthy,
)

log = logging.getLogger(__name__)

# Signatures that only the provider can make. Never "none", and none by a secret that is shared (HS256): our
# public knowledge of the keys would make such a signature.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
_TOKEN_LENGTH_MAX = 8192
_CLOCK_SKEW_S = 30
_ANSWERED_WITHIN_S = 5.0
_DOCUMENT_BYTES_MAX = 1024 * 1024
# Keys are fetched again so often, and for a key that is not known; but whoever makes up key ids makes us ask
# the provider no more often than this.
_KEYS_KEPT_S, _ASKED_AGAIN_AFTER_S = 300.0, 10.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Whoever is asked answers itself: a redirect could lead away from https."""

    def redirect_request(self, *_: Any) -> None:
        """None: it is an error."""


class OidcProvider:
    """One issuer, and the audience that its tokens must be for."""

    def __init__(self, issuer: str, audience: str, ca_file: str = "") -> None:
        self._issuer, self._audience = issuer, audience
        tls = ssl.create_default_context(cafile=ca_file or None)
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=tls), _NoRedirects())
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_s = self._asked_s = -_KEYS_KEPT_S
        self._fetching = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None  # kept, or it might be collected

    async def claims(self, token: str) -> Mapping[str, Any]:
        """What a valid token says: of this issuer, for this audience, signed, and in its time."""
        if len(token) > _TOKEN_LENGTH_MAX:
            raise BadTokenError(f"it has {len(token)} characters, and at most {_TOKEN_LENGTH_MAX} go")
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key(str(header.get("kid", "")))
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=_CLOCK_SKEW_S,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise BadTokenError(f"{type(error).__name__}: {error}") from None
        return claims

    async def _key(self, key_id: str) -> jwt.PyJWK:
        """The key of an id; a provider with one key need not name it."""
        if self._find(key_id) is None:
            await self._refresh()
        elif time.monotonic() - self._fetched_s > _KEYS_KEPT_S and not self._fetching.locked():
            # Nobody waits for it.
            self._refreshing = asyncio.create_task(self._refresh())
        if not self._keys:
            raise ProviderUnavailableError(f"no keys of {self._issuer} are known")
        key = self._find(key_id)
        if key is None:
            raise BadTokenError("its key is none of the issuer's")
        return key

    async def _refresh(self) -> None:
        """Fetch the keys, unless that was tried just now. What is known stays good where it does not work: a
        provider that is away must not lock everybody out.
        """
        async with self._fetching:
            now_s = time.monotonic()
            if now_s - self._asked_s <= _ASKED_AGAIN_AFTER_S:
                return
            self._asked_s = now_s
            try:
                self._keys = await asyncio.to_thread(self._fetch)
                self._fetched_s = now_s
            except (OSError, ValueError, KeyError, jwt.PyJWTError) as error:
                log.warning("the keys of %s cannot be fetched: %s", self._issuer, error)

    def _find(self, key_id: str) -> jwt.PyJWK | None:
        if not key_id and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _fetch(self) -> dict[str, jwt.PyJWK]:
        discovered = self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if discovered["issuer"] != self._issuer:
            raise ValueError(f"it calls itself {discovered['issuer']!r}")
        keys = jwt.PyJWKSet.from_dict(dict(self._get(str(discovered["jwks_uri"])))).keys
        return {key.key_id or "": key for key in keys if key.key_type != "oct"}

    def _get(self, url: str) -> Mapping[str, Any]:
        if not is_trustworthy(url):
            raise ValueError(f"{url} is not https")
        with self._opener.open(url, timeout=_ANSWERED_WITHIN_S) as answer:
            document = json.loads(answer.read(_DOCUMENT_BYTES_MAX))
        if not isinstance(document, dict):
            raise ValueError(f"{url} is no JSON object")
        return document
