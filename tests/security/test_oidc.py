"""People who prove who they are by an identity provider: a real one of the ecosystem, and what is forged."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import grpc
import httpx
import jwt
import oidc_provider_mock
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from mumian.api.v1 import access_service_pb2, fleet_service_pb2
from mumian.api.v1.access_service_pb2_grpc import AccessServiceStub
from mumian.api.v1.fleet_service_pb2_grpc import FleetServiceStub
from mumian_orchestrator.adapters.oidc.provider import OidcProvider
from mumian_orchestrator.domain.identity import Role
from mumian_orchestrator.main.config import ConfigError, OidcConfig, load
from mumian_orchestrator.ports.identity_provider import BadTokenError, ProviderUnavailableError
from mumian_orchestrator.services.access.authentication import ClaimMapping

from tests.security.secured import bearer, secured

AUDIENCE, BACK = "mumian", "http://127.0.0.1:1/back"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """A running OpenID Connect provider; its issuer."""
    with oidc_provider_mock.run_server_in_thread() as server:
        yield f"http://localhost:{server.server_port}"


def log_in(issuer: str, subject: str, **claims: object) -> str:
    """What a person's login at the provider gives: an id token, by the authorization code flow."""
    with httpx.Client() as browser:
        added = browser.put(f"{issuer}/users/{quote(subject)}", json={"sub": subject, **claims})
        assert added.status_code == 204, added.text
        found = browser.get(f"{issuer}/.well-known/openid-configuration").json()
        query = {
            "client_id": AUDIENCE,
            "redirect_uri": BACK,
            "response_type": "code",
            "scope": "openid profile",
        }
        granted = browser.post(found["authorization_endpoint"], params=query, data={"sub": subject})
        [code] = parse_qs(urlsplit(granted.headers["location"]).query)["code"]
        exchanged = browser.post(
            found["token_endpoint"],
            data={"grant_type": "authorization_code", "code": code, "redirect_uri": BACK},
            auth=(AUDIENCE, "secret"),
        )
        return str(exchanged.json()["id_token"])


async def test_a_person_logs_in_and_has_the_tenant_and_the_role_that_the_provider_says(
    provider: str, tmp_path: Path
) -> None:
    alice = log_in(provider, "alice", mumian_tenant="acme", mumian_roles=["tenant-user"])
    nobody = log_in(provider, "mallory", mumian_tenant="acme")
    async with (
        secured(tmp_path, oidc=OidcConfig(provider, AUDIENCE)) as platform,
        platform.people_channel() as channel,
    ):
        request = access_service_pb2.GetIdentityRequest()
        identity = (await AccessServiceStub(channel).GetIdentity(request, metadata=bearer(alice))).identity
        assert (identity.name, identity.tenant_id) == (f"person {provider}#alice", "acme")
        assert list(identity.roles) == [Role.TENANT_USER.wire]
        zones = fleet_service_pb2.ListZonesRequest()
        await FleetServiceStub(channel).ListZones(zones, metadata=bearer(alice))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await FleetServiceStub(channel).ListZones(zones, metadata=bearer(nobody))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, "known, and without a role"
        # Tokens of ours go on working beside it.
        own = bearer(await platform.token(Role.AUDITOR))
        await FleetServiceStub(channel).ListZones(zones, metadata=own)
        for forged in (alice[:-6] + "AAAAAA", alice.rsplit(".", 1)[0] + ".", "a.b.c", "x" * 100_000):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await FleetServiceStub(channel).ListZones(zones, metadata=bearer(forged))


async def test_a_token_for_another_audience_or_of_another_issuer_is_refused(provider: str) -> None:
    token = log_in(provider, "alice")
    assert (await OidcProvider(provider, AUDIENCE).claims(token))["sub"] == "alice"
    with pytest.raises(BadTokenError, match="InvalidAudience"):
        await OidcProvider(provider, "another").claims(token)
    with pytest.raises(ProviderUnavailableError):
        await OidcProvider(f"{provider}/", AUDIENCE).claims(token)


class Forger:
    """An issuer whose every token is the test's to make, and which counts how often it is asked for keys."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += self.path == "/keys"
                jwk = jwt.algorithms.RSAAlgorithm.to_jwk(outer.key.public_key(), as_dict=True)
                discovery = {"issuer": outer.issuer, "jwks_uri": f"{outer.issuer}/keys"}
                body = {"keys": [{**jwk, "kid": "k1", "use": "sig"}]} if self.path == "/keys" else discovery
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def token(self, key: Any = None, algorithm: str = "RS256", kid: str = "k1", **claims: object) -> str:
        now = int(time.time())
        good = {"iss": self.issuer, "aud": AUDIENCE, "sub": "a", "iat": now, "exp": now + 60}
        payload = {name: value for name, value in {**good, **claims}.items() if value is not None}
        return jwt.encode(
            payload, self.key if key is None else key, algorithm=algorithm, headers={"kid": kid}
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def forger() -> Iterator[Forger]:
    made = Forger()
    yield made
    made.close()


async def test_forged_tokens_are_refused_one_by_one(forger: Forger) -> None:
    provider = OidcProvider(forger.issuer, AUDIENCE)
    now = int(time.time())
    assert await provider.claims(forger.token())
    stranger = rsa.generate_private_key(65537, 2048)
    for why, token in {
        "signed by another key": forger.token(stranger),
        "expired": forger.token(exp=now - 60),
        "without an expiry": forger.token(exp=None),
        "not valid yet": forger.token(nbf=now + 600),
        "of another issuer": forger.token(iss="http://127.0.0.1:1"),
        "for several others": forger.token(aud=["x", "y"]),
        "of nobody": forger.token(sub=None),
        "without a signature": forger.token("", algorithm="none"),
        "by a secret": forger.token("0" * 64, algorithm="HS256"),
        "by a key that is not known": forger.token(kid="k2"),
        "too long": forger.token(x="x" * 9000),
    }.items():
        with pytest.raises(BadTokenError):
            await provider.claims(token)
            pytest.fail(why)


async def test_made_up_key_ids_do_not_make_us_ask_the_provider_over_and_over(forger: Forger) -> None:
    provider = OidcProvider(forger.issuer, AUDIENCE)
    for number in range(50):
        with pytest.raises(BadTokenError):
            await provider.claims(forger.token(kid=f"made-up-{number}"))
    assert forger.asked == 1


async def test_people_stay_in_while_the_provider_is_away(forger: Forger) -> None:
    provider = OidcProvider(forger.issuer, AUDIENCE)
    token = forger.token()
    assert await provider.claims(token)
    forger.close()
    provider._fetched_s = provider._asked_s = -1e9
    assert await provider.claims(token), "at once, by the key that is known"
    assert provider._refreshing is not None
    await provider._refreshing
    assert await provider.claims(token)
    with pytest.raises(ProviderUnavailableError):
        await OidcProvider(forger.issuer, AUDIENCE).claims(token)


def test_a_role_without_its_tenant_or_operator_is_dropped_and_groups_are_mapped() -> None:
    mapping = ClaimMapping(
        roles_claim="groups", roles={"city-admins": Role.PLATFORM_ADMIN, "t": Role.TENANT_USER}
    )
    claims: dict[str, Any] = {"iss": "i", "sub": "s", "exp": 1}
    assert mapping.caller({**claims, "groups": ["t", "city-admins", 3]}).roles == {Role.PLATFORM_ADMIN}
    assert mapping.caller({**claims, "groups": "t", "mumian_tenant": "acme"}).tenant_id == "acme"
    assert mapping.caller({**claims, "groups": "t", "mumian_tenant": "a/b"}).roles == frozenset()
    assert mapping.caller({**claims, "groups": "platform-admin"}).roles == frozenset()
    assert ClaimMapping().caller({**claims, "mumian_roles": "operator"}).roles == frozenset()


@pytest.mark.parametrize(
    ("oidc", "message"),
    [
        ("{issuer: 'http://city.example', audience: m}", "must be https"),
        ("{issuer: 'https://city.example'}", "oidc.audience is missing"),
        (
            "{issuer: 'https://city.example', audience: m, roles: {a: king}}",
            r"roles.a \('king'\) is no role",
        ),
        ("{issuer: 'https://city.example', audience: m, x: y}", "must be a mapping of"),
    ],
)
def test_what_is_wrong_in_the_configuration_names_the_field(tmp_path: Path, oidc: str, message: str) -> None:
    path = tmp_path / "coordinator.yaml"
    path.write_text(f"state_dir: {tmp_path}\noidc: {oidc}\n")
    with pytest.raises(ConfigError, match=message):
        load(path)
