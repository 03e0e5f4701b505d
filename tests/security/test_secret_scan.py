"""The scan of `make lint` finds a secret of each form in a tracked file, and does not repeat it."""

from __future__ import annotations

import base64
import secrets
import subprocess
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mumian_orchestrator.domain.access_tokens import ID_BYTES, SECRET_BYTES, api_token, site_token

from tools.check_secrets import FORMS, found_in


def _examples() -> dict[str, str]:
    """Made now, so that none stands here."""
    identity, secret, sha256 = (secrets.token_hex(size) for size in (ID_BYTES, SECRET_BYTES, 32))
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    claims = [base64.urlsafe_b64encode(b'{"alg":"none","of":"a test"}').decode().rstrip("=")] * 3
    letters = "A1b2C3d4E5" * 8
    return {
        "a private key": pem,
        "an API token of Mumian": f"export MUMIAN_TOKEN={api_token(identity, secret)}\n",
        "a token by which a site joins": site_token("gz-1", identity, secret, sha256),
        "a key of Fernet": f"{Fernet.generate_key().decode()}\n",
        "a token with claims (JWT)": f"token: {'.'.join(claims)}",
        "a key of AWS": f"id = AKIA{letters[:16].upper()}",
        "a key of Alibaba Cloud": f"id: LTAI{letters[:20]}",
        "a key of Tencent Cloud": f"id: AKID{letters[:32]}",
        "a token of GitHub": f"ghp_{letters[:36]}",
        "a token of GitLab": f"glpat-{letters[:20]}",
        "a token of PyPI": f"pypi-AgEIcHlwaS5vcmc{letters[:40]}",
        "a token of Slack": f"xoxb-{letters[:24]}",
        "a password in an address": f"postgres://app:{secret[:12]}@db.example/app",
    }


@pytest.mark.parametrize("what", FORMS)
def test_a_secret_of_each_form_is_found_by_its_place_and_not_repeated(tmp_path: Path, what: str) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "clean.txt").write_text("postgres://db.example/app, sha256 " + secrets.token_hex(32))
    (tmp_path / "file.txt").write_text(f"first line\n{_examples()[what]}\n")
    assert found_in(tmp_path) == []  # nobody has added it yet
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    assert found_in(tmp_path) == [f"file.txt:2: {what}"]


def test_nothing_of_that_kind_is_in_this_repository() -> None:
    assert found_in(Path(__file__).parents[2]) == []
