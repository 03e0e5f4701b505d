"""What keeps secrets from those who can read the store."""

from __future__ import annotations

from typing import Protocol


class SealBrokenError(Exception):
    """What was to be opened was sealed by a key that is not here, or is not what was sealed."""


class SecretBox(Protocol):
    """Encrypts and authenticates bytes."""

    def seal(self, content: bytes) -> bytes:
        """The content, for nobody without the key."""
        ...

    def open(self, sealed: bytes) -> bytes:
        """The content again.

        Raises:
            SealBrokenError: it is not to be had.
        """
        ...
