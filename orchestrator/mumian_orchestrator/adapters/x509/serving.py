"""What a door serves with, always fresh: issued here and renewed in time, or read again when files change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mumian_orchestrator.adapters.x509.authority import AuthorityFileError, KeyPair, X509Authority
from mumian_orchestrator.ports.clock import Clock

log = logging.getLogger(__name__)

# Asked at every new connection, so it must be quick when nothing has changed.
KeyPairs = Callable[[], KeyPair]


def issued(authority: X509Authority, names: tuple[str, ...], clock: Clock) -> KeyPairs:
    """A certificate of the authority; its key is only ever in memory. A new one at half its life."""
    current = authority.for_coordinator(names)

    def fresh() -> KeyPair:
        nonlocal current
        if clock.now().seconds >= (current.issue_unix_s + current.expire_unix_s) // 2:
            current = authority.for_coordinator(names)
            log.info("the coordinator's certificate was renewed")
        return current

    return fresh


def of_files(certificate_file: Path, key_file: Path) -> KeyPairs:
    """A certificate that comes from elsewhere. Files that cannot be used leave what there is.

    Raises:
        AuthorityFileError: they cannot be used now.
    """
    state = _state(certificate_file, key_file)
    current = _read(certificate_file, key_file)

    def fresh() -> KeyPair:
        nonlocal state, current
        try:
            newest = _state(certificate_file, key_file)
            if newest != state:
                state, current = newest, _read(certificate_file, key_file)
                log.info("read %s again", certificate_file)
        except AuthorityFileError as error:
            log.error("the certificate stays as it was: %s", error)
        return current

    return fresh


def _state(*files: Path) -> tuple[tuple[int, int], ...]:
    try:
        found = [file.stat() for file in files]
    except OSError as error:
        raise AuthorityFileError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from None
    return tuple((each.st_mtime_ns, each.st_ino) for each in found)


def _read(certificate_file: Path, key_file: Path) -> KeyPair:
    try:
        chain, key = certificate_file.read_bytes(), key_file.read_bytes()
        certificate = x509.load_pem_x509_certificates(chain)[0]
        if serialization.load_pem_private_key(key, None).public_key() != certificate.public_key():
            raise AuthorityFileError(f"{key_file} is not the key of {certificate_file}")
    except OSError as error:
        raise AuthorityFileError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, TypeError, IndexError) as error:
        raise AuthorityFileError(f"{certificate_file} or {key_file} cannot be read: {error}") from None
    return KeyPair(
        key,
        chain,
        int(certificate.not_valid_before_utc.timestamp()),
        int(certificate.not_valid_after_utc.timestamp()),
    )
