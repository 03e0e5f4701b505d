"""Who people are, as an identity provider outside of Mumian tells by signed tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit


class BadTokenError(Exception):
    """A token that proves nothing, and why. For the log: who shows it is not told more than that."""


class ProviderUnavailableError(Exception):
    """The provider's keys cannot be had now."""


class IdentityProvider(Protocol):
    """One provider."""

    async def claims(self, token: str) -> Mapping[str, Any]:
        """What a valid token says.

        Raises:
            BadTokenError: it is none, of another issuer, for somebody else, or not valid now.
            ProviderUnavailableError: it cannot be checked.
        """


def is_trustworthy(url: str) -> bool:
    """Whether nobody on the way can change what it answers: https, or this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1")
    )
