"""Which doors a coordinator opens by its configuration, and with what files it does so."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import grpc
import mumian
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mumian.api.v1 import fleet_service_pb2
from mumian.api.v1.fleet_service_pb2_grpc import FleetServiceStub
from mumian.errors import MumianError
from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.x509 import serving
from mumian_orchestrator.adapters.x509.authority import AuthorityFileError, X509Authority
from mumian_orchestrator.domain.identity import Role
from mumian_orchestrator.main.config import Config, ConfigError, load
from mumian_orchestrator.main.security import refuse_open_doors, security_of

from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.security.secured import SiteKey, bearer, secured

CLOCK = SystemClock()


def loaded(folder: Path, **fields: object) -> Config:
    path = folder / "coordinator.yaml"
    path.write_text(yaml.safe_dump(fields))
    return load(path)


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"listen": "0.0.0.0:7070"}, r"listen \(0.0.0.0:7070\) can be reached .*set state_dir"),
        ({"listen": "city.example:7070"}, "set state_dir to a folder"),
        ({"etcd": "10.0.0.1:2379"}, r"etcd \(10.0.0.1:2379\) is on another machine.*set etcd_ca"),
        ({"metrics": "0.0.0.0:9090"}, "add --expose-metrics on a network that you trust"),
    ],
)
def test_a_door_that_others_could_use_without_proof_is_not_opened(
    tmp_path: Path, fields: dict[str, object], advice: str
) -> None:
    with pytest.raises(ConfigError, match=advice):
        refuse_open_doors(loaded(tmp_path, **fields), exposes_metrics=False)


def test_on_this_machine_nothing_needs_to_be_configured(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    refuse_open_doors(config, exposes_metrics=False)
    assert security_of(config, CLOCK) is None
    assert config.address == "127.0.0.1:7070"


def test_with_tls_the_other_coordinators_come_by_the_agents_door(tmp_path: Path) -> None:
    config = loaded(tmp_path, listen="0.0.0.0:7070", state_dir=str(tmp_path))
    refuse_open_doors(config, exposes_metrics=False)
    assert (config.agents_door, config.address) == ("0.0.0.0:7071", "0.0.0.0:7071")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ca_key": "k"}, "ca_key .* says nothing without ca_cert"),
        ({"ca_cert": "c"}, "without ca_key: then tls_cert and tls_key must be"),
        ({"state_dir": "s", "tls_cert": "c"}, "says nothing without tls_key"),
        ({"tls_names": ["x"]}, "tls_names says nothing without TLS; set state_dir"),
        ({"state_dir": "s", "tls_names": "x"}, "must be a list of host names"),
        ({"listen_agents": "127.0.0.1:1"}, "listen_agents says nothing without TLS"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, **fields)


def test_an_authority_whose_key_others_can_read_or_that_is_broken_is_refused(tmp_path: Path) -> None:
    X509Authority.embedded(tmp_path, CLOCK)
    key = tmp_path / "authority.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o640)
    with pytest.raises(AuthorityFileError, match="can be read by others, and whoever has it may do anything"):
        X509Authority.embedded(tmp_path, CLOCK)
    key.chmod(0o600)
    key.write_bytes(b"nonsense")
    with pytest.raises(AuthorityFileError, match="cannot be read"):
        X509Authority.embedded(tmp_path, CLOCK)
    other = tmp_path / "other"
    X509Authority.embedded(other, CLOCK)
    key.write_bytes((other / "authority.key").read_bytes())
    with pytest.raises(AuthorityFileError, match="not the key of its"):
        X509Authority.embedded(tmp_path, CLOCK)


def intermediate(folder: Path) -> tuple[Path, Path]:
    """An authority of one's own as firms have them: an intermediate below a root."""
    root = X509Authority.embedded(folder / "root", CLOCK)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "city intermediate")]))
        .issuer_name(root._issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(root._issuer.not_valid_before_utc)
        .not_valid_after(root._issuer.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(root._key, hashes.SHA256())  # type: ignore[arg-type]
    )
    files = folder / "ca.pem", folder / "ca.key"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


async def test_an_authority_of_ones_own_issues_as_the_embedded_one_does(tmp_path: Path) -> None:
    ca_cert, ca_key = intermediate(tmp_path)
    async with secured(tmp_path, state_dir="", ca_cert=str(ca_cert), ca_key=str(ca_key)) as platform:
        key = await platform.joined()
        async with platform.agent_channel(key.pem, key.certificate) as channel:
            agent = ScriptedAgent(channel)
            await agent.connect()
            assert agent.error is None
            await agent.disconnect()


async def test_where_the_authoritys_key_is_elsewhere_certificates_come_from_there_and_are_read_again(
    tmp_path: Path,
) -> None:
    authority = X509Authority.embedded(tmp_path / "elsewhere", CLOCK)
    files = tmp_path / "coordinator.pem", tmp_path / "coordinator.key"

    def issue() -> bytes:
        pair = authority.for_coordinator(["127.0.0.1"])
        files[0].write_bytes(pair.chain)
        files[1].write_bytes(pair.key)
        return pair.chain

    issue()
    fields: dict[str, Any] = {"ca_cert": str(tmp_path / "elsewhere/authority.pem"), "state_dir": ""}
    async with secured(tmp_path, **fields, tls_cert=str(files[0]), tls_key=str(files[1])) as platform:
        key = SiteKey()
        key.certificate = authority.issue_for_site("gz", key.request).certificate
        async with platform.agent_channel(key.pem, key.certificate) as channel:
            agent = ScriptedAgent(channel)
            await agent.connect()
            assert agent.error is None
            await agent.disconnect()
        async with platform.people_channel() as channel:
            join: Any = channel.unary_unary("/mumian.agent.v1.EnrolmentService/Join")
            with pytest.raises(grpc.aio.AioRpcError, match="its ca_key is kept elsewhere"):
                await join(b"")
        token = await platform.token(Role.AUDITOR)
        served = grpc.ssl_channel_credentials(platform.authority)
        newest = issue()
        os.utime(files[0], ns=(time.time_ns(), time.time_ns()))
        assert platform.security.people().chain == newest
        async with grpc.aio.secure_channel(platform.people, served) as channel:
            zones = fleet_service_pb2.ListZonesRequest()
            await FleetServiceStub(channel).ListZones(zones, metadata=bearer(token))
        files[1].write_bytes(b"half written")
        assert platform.security.people().chain == newest, "what cannot be used leaves what there is"


def test_a_coordinators_certificate_is_renewed_at_half_its_life(tmp_path: Path) -> None:
    class Later(SystemClock):
        ahead_s = 0

        def now(self):  # type: ignore[no-untyped-def]
            stamp = super().now()
            stamp.seconds += self.ahead_s
            return stamp

    clock = Later()
    fresh = serving.issued(X509Authority.embedded(tmp_path, clock, 1000), ("127.0.0.1",), clock)
    first = fresh()
    clock.ahead_s = 490
    assert fresh() is first
    clock.ahead_s = 510
    assert fresh() is not first


async def test_the_sdk_proves_who_it_is_and_believes_only_its_authority(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        token_file, ca_file = tmp_path / "token", tmp_path / "authority.pem"
        token_file.write_text(f"{await platform.token(Role.TENANT_USER, 'acme')}\n")
        with pytest.raises(MumianError, match="can be read by others; `chmod 600"):
            token_file.chmod(0o644)
            mumian.AsyncClient(platform.people, token_file=token_file, ca_file=ca_file)
        token_file.chmod(0o600)
        async with mumian.AsyncClient(platform.people, token_file=token_file, ca_file=ca_file) as client:
            identity = await client.identity()
            assert identity.tenant_id == "acme"
            assert "mumian_" not in repr(client._connection), "a token is in no log"
        X509Authority.embedded(tmp_path / "other", CLOCK)
        other = tmp_path / "other/authority.pem"
        async with mumian.AsyncClient(platform.people, token_file=token_file, ca_file=other) as client:
            with pytest.raises(MumianError, match="its certificate is not of the authority in --ca"):
                await client.identity()
        async with mumian.AsyncClient(platform.people, token_file=token_file) as client:
            with pytest.raises(MumianError, match="it may want TLS, so give --ca FILE"):
                await client.identity()
