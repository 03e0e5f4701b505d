"""Secrets encrypted by Fernet (AES-128 in CBC mode, HMAC-SHA256), as pyca/cryptography has it."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from mumian_orchestrator.ports.secret_box import SealBrokenError


class KeyFileError(Exception):
    """The file of the keys cannot be used, in one line that names it and says what to do."""


class FernetBox:
    """A secret box with the keys of a file: one a line, 32 bytes in URL-safe base64; the first one seals, all
    open, so that a new key can be put before an old one.
    """

    def __init__(self, file: Path) -> None:
        """Read the keys.

        Raises:
            KeyFileError: they cannot be read, are none, or can be read by other users of the machine.
        """
        try:
            lines = file.read_text(encoding="ascii").split()
            mode = file.stat().st_mode
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(f"{file} cannot be read: {getattr(error, 'strerror', error)}") from None
        if mode & 0o077:
            raise KeyFileError(f"{file} can be read by others; `chmod 600 {file}`")
        try:
            self._keys = MultiFernet([Fernet(line) for line in lines])
        except ValueError:
            raise KeyFileError(
                f"{file} must hold one key a line, each 32 random bytes in URL-safe base64; "
                "`openssl rand -base64 32 | tr +/ -_` makes one"
            ) from None

    @classmethod
    def made_in(cls, file: Path) -> FernetBox:
        """With a file that is made, with a new key, where there is none.

        Raises:
            KeyFileError: it cannot be made or used.
        """
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _make(file)
        except OSError as error:
            raise KeyFileError(f"{file} cannot be made: {error.strerror}") from None
        return cls(file)

    def seal(self, content: bytes) -> bytes:
        """The content, for nobody without the keys."""
        return self._keys.encrypt(content)

    def open(self, sealed: bytes) -> bytes:
        """The content again.

        Raises:
            SealBrokenError: no key of the file has sealed it.
        """
        try:
            return self._keys.decrypt(sealed)
        except InvalidToken:
            raise SealBrokenError("no key of this coordinator opens it") from None


def _make(file: Path) -> None:
    """Whole or not at all, and never over one that is there, whoever makes it at the same time."""
    if file.exists():
        return
    scratch = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as writer:
        writer.write(Fernet.generate_key() + b"\n")
        writer.flush()
        os.fsync(descriptor)
    try:
        file.hardlink_to(scratch)
    except FileExistsError:
        pass
    finally:
        scratch.unlink()
