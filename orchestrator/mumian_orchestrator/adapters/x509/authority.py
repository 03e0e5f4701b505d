"""The authority on X.509: embedded, with its key in a folder of the coordinator's, or given as files."""

from __future__ import annotations

import datetime
import functools
import hashlib
import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mumian_orchestrator.domain.identity import CONSOLE_IDENTITY, COORDINATOR_IDENTITY, SITE_IDENTITY
from mumian_orchestrator.ports.authority import BadCertificateError, Issued, PeerCertificate
from mumian_orchestrator.ports.clock import Clock

CERTIFICATE_LIFETIME_S = 24 * 3600
CONSOLE_LIFETIME_S = 300
_AUTHORITY_LIFETIME = datetime.timedelta(days=3650)
# Clocks differ: a certificate is good from a little before it was made.
_BACKDATED = datetime.timedelta(minutes=5)
_REQUEST_BYTES_MAX = 8192
_CERTIFICATE, _KEY = "authority.pem", "authority.key"


class AuthorityFileError(Exception):
    """The authority's files cannot be used, and what to do."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key with its certificate and those of the authority behind it, in PEM."""

    key: bytes
    chain: bytes
    issue_unix_s: int
    expire_unix_s: int


class X509Authority:
    """Issues on P-256 keys; reads what it has issued."""

    def __init__(
        self, certificates: bytes, key: bytes | None, clock: Clock, lifetime_s: int = CERTIFICATE_LIFETIME_S
    ) -> None:
        """
        Args:
            certificates: PEM; the issuing one first.
            lifetime_s: of what it issues to coordinators and sites.

        Raises:
            AuthorityFileError: they are none, or the key is of another certificate.
        """
        self._clock, self._lifetime_s = clock, lifetime_s
        try:
            self._certificates = x509.load_pem_x509_certificates(certificates)
            loaded = serialization.load_pem_private_key(key, None) if key else None
        except (ValueError, TypeError) as error:
            raise AuthorityFileError(f"the authority's files cannot be read: {error}") from None
        if loaded is not None and not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise AuthorityFileError("the authority's key must be of an elliptic curve, such as P-256")
        self._issuer, self._key = self._certificates[0], loaded
        if self._key is not None and self._key.public_key() != self._issuer.public_key():
            raise AuthorityFileError("the authority's key is not the key of its (first) certificate")
        self._read_once = functools.lru_cache(4096)(self._read)

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether a folder has an embedded authority."""
        return (folder / _CERTIFICATE).exists()

    @classmethod
    def embedded(cls, folder: Path, clock: Clock, lifetime_s: int = CERTIFICATE_LIFETIME_S) -> X509Authority:
        """The authority of a folder; made there where there is none yet.

        Raises:
            AuthorityFileError: what is there cannot be used.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not (folder / _CERTIFICATE).exists():
                _make_authority(folder, clock)
            key_file = folder / _KEY
            if key_file.stat().st_mode & 0o077:
                raise AuthorityFileError(
                    f"{key_file} can be read by others, and whoever has it may do anything; "
                    f"`chmod 600 {key_file}`, and find out who has read it"
                )
            return cls((folder / _CERTIFICATE).read_bytes(), key_file.read_bytes(), clock, lifetime_s)
        except OSError as error:
            raise AuthorityFileError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from None

    @property
    def can_issue(self) -> bool:
        """Whether the key is here."""
        return self._key is not None

    @property
    def pem(self) -> bytes:
        """All its certificates."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self._certificates)

    @property
    def sha256(self) -> str:
        """Of the issuing certificate."""
        return self._issuer.fingerprint(hashes.SHA256()).hex()

    def key_of(self, request: bytes) -> str:
        """The hash of the public key of a request."""
        return _key_sha256(_parsed(request).public_key())

    def issue_for_site(self, site_id: str, request: bytes) -> Issued:
        """A certificate by which the agent of a site connects; it is good for nothing else."""
        public_key = _parsed(request).public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        certificate = self._issue(
            public_key,
            f"{SITE_IDENTITY}{site_id}",
            [ExtendedKeyUsageOID.CLIENT_AUTH],
            (),
            self._lifetime_s,
        )
        issue_unix_s = self._clock.now().seconds
        return Issued(
            certificate.public_bytes(Encoding.PEM),
            _key_sha256(public_key),
            issue_unix_s,
            issue_unix_s + self._lifetime_s,
        )

    def for_coordinator(self, names: Iterable[str]) -> KeyPair:
        """What a coordinator serves with under these names and addresses, and asks others with."""
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._key_pair(COORDINATOR_IDENTITY, usages, names, self._lifetime_s)

    def for_console(self, user: str) -> KeyPair:
        """What a command on the coordinator's own machine proves itself by. Whoever can read the authority's
        key may do anything; this makes it so, for some minutes and under a name.
        """
        return self._key_pair(
            f"{CONSOLE_IDENTITY}{user}", [ExtendedKeyUsageOID.CLIENT_AUTH], (), CONSOLE_LIFETIME_S
        )

    def read(self, certificate: bytes) -> PeerCertificate:
        """What a certificate says, if it is of this authority and good now."""
        peer = self._read_once(certificate)
        if self._clock.now().seconds >= peer.expire_unix_s:
            raise BadCertificateError("it has expired")
        return peer

    def _read(self, pem: bytes) -> PeerCertificate:
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, x509.ExtensionNotFound):
            raise BadCertificateError("it is none, or names nobody") from None
        if not any(_has_issued(issuer, certificate) for issuer in self._certificates):
            raise BadCertificateError("another authority has issued it")
        if certificate.not_valid_before_utc.timestamp() > self._clock.now().seconds:
            raise BadCertificateError("it is not valid yet; are the clocks right?")
        identities = names.get_values_for_type(x509.UniformResourceIdentifier)
        if len(identities) != 1:
            raise BadCertificateError("it must name one identity (a SPIFFE id)")
        expire_unix_s = int(certificate.not_valid_after_utc.timestamp())
        return PeerCertificate(identities[0], _key_sha256(certificate.public_key()), expire_unix_s)

    def _key_pair(
        self, identity: str, usages: Sequence[x509.ObjectIdentifier], names: Iterable[str], lifetime_s: int
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue(key.public_key(), identity, usages, names, lifetime_s)
        now_s = self._clock.now().seconds
        return KeyPair(
            _private_pem(key), certificate.public_bytes(Encoding.PEM) + self.pem, now_s, now_s + lifetime_s
        )

    def _issue(
        self,
        public_key: ec.EllipticCurvePublicKey,
        identity: str,
        usages: Sequence[x509.ObjectIdentifier],
        names: Iterable[str],
        lifetime_s: int,
    ) -> x509.Certificate:
        if self._key is None:
            raise BadCertificateError("this coordinator has no key to issue certificates with")
        now = datetime.datetime.fromtimestamp(self._clock.now().seconds, datetime.UTC)
        alternative: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity)]
        alternative += [_general_name(name) for name in dict.fromkeys(names)]
        key_usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        return (
            x509.CertificateBuilder()
            .subject_name(_subject(identity.removeprefix("spiffe://")))
            .issuer_name(self._issuer.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + datetime.timedelta(seconds=lifetime_s))
            .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
            .add_extension(_issuer_id(self._issuer), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _make_authority(folder: Path, clock: Clock) -> None:
    """Make a key and its certificate. Of two coordinators that begin at once, one makes them."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.fromtimestamp(clock.now().seconds, datetime.UTC)
    name = _subject("mumian authority")
    key_usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    try:
        descriptor = os.open(folder / _KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise AuthorityFileError(
            f"{folder / _KEY} is there without {_CERTIFICATE}: another coordinator is making it now, and "
            "starting this one again will do; if none is, remove the key"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(_private_pem(key))
    scratch = folder / f"{_CERTIFICATE}.new"
    scratch.write_bytes(certificate.public_bytes(Encoding.PEM))
    scratch.replace(folder / _CERTIFICATE)


def _parsed(request: bytes) -> x509.CertificateSigningRequest:
    if len(request) > _REQUEST_BYTES_MAX:
        raise BadCertificateError(f"it has {len(request)} bytes, and at most {_REQUEST_BYTES_MAX} go")
    try:
        parsed = x509.load_der_x509_csr(request)
        is_its_own = parsed.is_signature_valid
    except (ValueError, InvalidSignature, TypeError):
        raise BadCertificateError("it is no certificate request (PKCS #10, DER)") from None
    public_key = parsed.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(
        public_key.curve, ec.SECP256R1
    ):
        raise BadCertificateError("its key must be of the curve P-256")
    if not is_its_own:
        raise BadCertificateError("it is not signed by its own key")
    return parsed


def _has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _key_sha256(public_key: object) -> str:
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise BadCertificateError("its key must be of an elliptic curve")
    der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _subject(name: str) -> x509.Name:
    # A common name has at most 64 characters; who it is says the alternative name.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return x509.DNSName(name)


def _issuer_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
    except x509.ExtensionNotFound:
        public_key = issuer.public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)
