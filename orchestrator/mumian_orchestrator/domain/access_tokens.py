"""The tokens that Mumian gives out: an id to find one by, and a secret of which only the hash is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

_API_TOKEN = re.compile(r"mumian_([0-9a-f]{10})_([0-9a-f]{64})")
_SITE_TOKEN = re.compile(r"mumian-site_([a-z0-9-]{1,63})_([0-9a-f]{10})_([0-9a-f]{64})_([0-9a-f]{64})")
API_TOKEN_PREFIX = "mumian_"
ID_BYTES, SECRET_BYTES = 5, 32


@dataclass(frozen=True, slots=True)
class Presented:
    """What somebody who shows a token has shown."""

    id: str
    secret: str


def api_token(token_id: str, secret: str) -> str:
    """The token as its owner keeps it."""
    return f"{API_TOKEN_PREFIX}{token_id}_{secret}"


def parse_api_token(text: str) -> Presented | None:
    """The parts of a token; None where it is none."""
    match = _API_TOKEN.fullmatch(text)
    return Presented(match[1], match[2]) if match else None


def site_token(site_id: str, token_id: str, secret: str, authority_sha256: str) -> str:
    """The token as it is brought to the site: also what the agent needs to know whom it may trust with it."""
    return f"mumian-site_{site_id}_{token_id}_{secret}_{authority_sha256}"


def parse_site_token(text: str) -> Presented | None:
    """The parts that the coordinator needs; it knows the rest itself."""
    match = _SITE_TOKEN.fullmatch(text)
    return Presented(match[2], match[3]) if match else None


def secret_sha256(secret: str) -> bytes:
    """What is stored of a secret. It is 32 random bytes, so that nothing slower than SHA-256 is needed."""
    return hashlib.sha256(secret.encode()).digest()


def matches(secret: str, stored_sha256: bytes) -> bool:
    """Whether it is the secret, in a time that does not tell how far it is right."""
    return hmac.compare_digest(secret_sha256(secret), stored_sha256)
