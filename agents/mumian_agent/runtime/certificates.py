"""What the agent proves its site by: a key that never leaves its folder, and the certificates for it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mumian_agent.domain.fields import ConfigError


@dataclass(frozen=True, slots=True)
class Enrolment:
    """How the site has joined, and how long its certificate is good (Unix time, s)."""

    site_id: str
    coordinators: tuple[str, ...]  # people's doors, where certificates are renewed
    issue_unix_s: int
    expire_unix_s: int

    @property
    def renew_unix_s(self) -> float:
        """When half of its life is over."""
        return (self.issue_unix_s + self.expire_unix_s) / 2


@dataclass(frozen=True, slots=True)
class Proof:
    """For one connection, in PEM: who must be at the other end, and what this one shows."""

    authority: bytes
    certificate: bytes
    key: bytes


class Certificates:
    """The files. Read at every connection, so what is put there counts without a restart."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / "tls"
        self._key, self.request_file = self.folder / "key.pem", self.folder / "request.der"
        # A key that has asked to join, and has no answer yet.
        self.new_key_file, self.new_request_file = (
            self.folder / "new-key.pem",
            self.folder / "new-request.der",
        )
        self._certificate, self._authority = self.folder / "certificate.pem", self.folder / "authority.pem"
        self._enrolment = self.folder / "enrolment.json"

    def exist(self) -> bool:
        """Whether the site has joined; if not, it connects without TLS, which goes on this machine only."""
        return self._certificate.exists()

    def proof(self) -> Proof | None:
        """The newest; None where the site has not joined.

        Raises:
            ConfigError: a file cannot be read.
        """
        if not self.exist():
            return None
        try:
            key = self._key.read_bytes()
            return Proof(self._authority.read_bytes(), self._certificate.read_bytes(), key)
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be read: {error.strerror}; join again") from None

    def enrolment(self) -> Enrolment | None:
        """How the site has joined; None where its certificates come from elsewhere, who then renews them."""
        try:
            known = json.loads(self._enrolment.read_text())
            return Enrolment(**{**known, "coordinators": tuple(known["coordinators"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{self._enrolment} cannot be used ({error}); join again") from None

    def store(self, certificate: bytes, authority: bytes, enrolment: Enrolment) -> None:
        """Keep a fresh certificate. Broken off anywhere, what is there works."""
        for file, content in (
            (self._authority, authority),
            (self._certificate, certificate),
            (self._enrolment, json.dumps(asdict(enrolment)).encode()),
        ):
            scratch = file.with_suffix(".new")
            scratch.write_bytes(content)
            scratch.replace(file)

    def take_new_key(self) -> None:
        """The new key has joined: from now on it is the site's."""
        for new, old in ((self.new_key_file, self._key), (self.new_request_file, self.request_file)):
            if new.exists():
                new.replace(old)

    def write_secret(self, file: Path, content: bytes) -> None:
        """A new file that only this user can ever have read."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = file.with_suffix(".new")
        scratch.unlink(missing_ok=True)
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(content)
        scratch.replace(file)


def is_due(enrolment: Enrolment) -> bool:
    """Whether the certificate is to be renewed now."""
    return time.time() >= enrolment.renew_unix_s
