"""The site's key, made where it stays, and the request for certificates that it signs."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mumian_agent.runtime.certificates import Certificates


def request_of(certificates: Certificates, site_id: str, *, new_key: bool = False) -> bytes:
    """The certificate request (PKCS #10, DER) of the site's key, or of a new one, which is made now.

    A key that has asked before asks again: its answer may have been lost, and it gets what it was to get.
    """
    if certificates.request_file.exists() and not new_key:
        return certificates.request_file.read_bytes()
    if not (certificates.new_key_file.exists() and certificates.new_request_file.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site_id[:64])])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificates.write_secret(certificates.new_key_file, pem)
        certificates.write_secret(certificates.new_request_file, request.public_bytes(Encoding.DER))
    return certificates.new_request_file.read_bytes()
