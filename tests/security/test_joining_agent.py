"""The agent's side of enrolment: whom it believes, what it keeps, and certificates renewed while it works."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
import yaml
from mumian.agent.v1.agent_pb2 import AgentReport, CoordinatorCommand, Hello
from mumian_agent.adapters.grpc.coordinator_stream import CoordinatorStream, Outbox, RefusedForGoodError
from mumian_agent.adapters.grpc.enrolment import JoinError
from mumian_agent.domain.config import AgentConfig
from mumian_agent.domain.fields import ConfigError
from mumian_agent.domain.site_token import parse_site_token
from mumian_agent.main.config_file import load
from mumian_agent.main.joining import join, keep_certificate_fresh, refuse_the_open_network
from mumian_agent.runtime.certificates import Certificates
from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.x509.authority import X509Authority

from tests.orchestrator.scripted_agent import timestamp
from tests.security.secured import ROOT, Secured, secured


def config_of(folder: Path, coordinator: str, site_id: str = "gz") -> AgentConfig:
    path = folder / "site.yaml"
    site = {"id": site_id, "operator_id": "op", "tier": "edge", "jurisdiction": "CN"}
    fields = {
        "site": {**site, "pue": {"average": 1.2}},
        "coordinator": coordinator,
        "state_dir": str(folder / "agent"),
        "reflector": {"listen": "127.0.0.1:9100"},
    }
    path.write_text(yaml.safe_dump(fields))
    return load(path)


async def joined(platform: Secured, folder: Path) -> AgentConfig:
    config = config_of(folder, platform.agents)
    token = parse_site_token(await platform.site_token())
    await asyncio.to_thread(join, config, platform.people, token, new_key=False)
    return config


class Listener:
    """Somebody in between, with a certificate of its own, who notes what is sent."""

    def __init__(self, folder: Path, chain: bytes, key: bytes) -> None:
        (folder / "chain.pem").write_bytes(chain)
        (folder / "key.pem").write_bytes(key)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(folder / "chain.pem", folder / "key.pem")
        self._tls.set_alpn_protocols(["h2"])
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.heard = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
                with self._tls.wrap_socket(plain, server_side=True) as connection:
                    connection.settimeout(2)
                    while data := connection.recv(65536):
                        self.heard += data
            except OSError:
                if self._socket.fileno() < 0:
                    return

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("shows_our_authority", [False, True])
async def test_the_token_is_sent_to_nobody_who_has_not_the_authority_that_it_names(
    tmp_path: Path, shows_our_authority: bool
) -> None:
    async with secured(tmp_path / "ours") as platform:
        theirs = X509Authority.embedded(tmp_path / "theirs", SystemClock())
        pair = theirs.for_coordinator(["127.0.0.1"])
        chain = pair.chain + (platform.authority if shows_our_authority else b"")
        listener = Listener(tmp_path, chain, pair.key)
        text = await platform.site_token()
        config = config_of(tmp_path, platform.agents)
        with pytest.raises(JoinError) as refused:
            await asyncio.to_thread(join, config, listener.address, parse_site_token(text), new_key=False)
        listener.close()
        if not shows_our_authority:
            assert "The token was not sent; check the address" in str(refused.value)
        for part in text.split("_")[2:]:
            assert part.encode() not in listener.heard
            assert part not in str(refused.value) or part == text.split("_")[4]
        assert not Certificates(config.state_dir).exist()


async def test_the_key_is_made_here_stays_here_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    async with secured(tmp_path / "ours") as platform:
        config = await joined(platform, tmp_path)
        folder = config.state_dir / "tls"
        assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        key = (folder / "key.pem").read_bytes()
        # A key that is refused does not take the place of the one that works.
        used = parse_site_token(await platform.site_token())
        await platform.services.access.sites.revoke(ROOT, "gz")
        with pytest.raises(JoinError, match="the token is not valid"):
            await asyncio.to_thread(join, config, platform.people, used, new_key=True)
        assert (folder / "key.pem").read_bytes() == key


def test_a_token_for_another_site_or_none_is_refused_without_repeating_it(tmp_path: Path) -> None:
    secret = "0" * 64
    token = parse_site_token(f"mumian-site_sz_{'0' * 10}_{secret}_{'f' * 64}")
    with pytest.raises(ConfigError, match="the token is for site sz"):
        join(config_of(tmp_path, "127.0.0.1:1"), "127.0.0.1:1", token, new_key=False)
    with pytest.raises(ConfigError) as refused:
        parse_site_token(f"mumian-site_sz_{secret}")
    assert secret not in str(refused.value)
    assert secret not in repr(token)


def test_an_agent_that_has_not_joined_talks_within_this_machine_only(tmp_path: Path) -> None:
    near = config_of(tmp_path, "127.0.0.1:7070")
    refuse_the_open_network(near, Certificates(near.state_dir))
    far = config_of(tmp_path, "192.0.2.9:7071")
    with pytest.raises(ConfigError, match="is on another machine, and this site has not joined"):
        refuse_the_open_network(far, Certificates(far.state_dir))


async def test_a_state_folder_of_another_site_is_refused(tmp_path: Path) -> None:
    async with secured(tmp_path / "ours") as platform:
        config = await joined(platform, tmp_path)
        other = config_of(tmp_path, platform.agents, "sz")
        with pytest.raises(ConfigError, match=r"is of site gz, and site\.id is sz"):
            refuse_the_open_network(other, Certificates(config.state_dir))


class Site:
    """What the stream is for, without anything to run."""

    def __init__(self, config: AgentConfig) -> None:
        self._site, self.welcomes = config.site, 0
        self.welcomed = asyncio.Event()

    def hello(self) -> AgentReport:
        return AgentReport(hello=Hello(site=self._site, agent_time=timestamp()))

    def obey(self, command: CoordinatorCommand) -> None:
        self.welcomes += command.HasField("welcome")
        self.welcomed.set()

    def disconnected(self) -> None: ...


async def test_certificates_are_renewed_at_half_life_and_a_revoked_site_gives_up(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path / "ours", certificate_lifetime_s=4) as platform:
        config = await joined(platform, tmp_path)
        certificates, site = Certificates(config.state_dir), Site(config)
        first = certificates.proof()
        stream = CoordinatorStream(config.coordinators, 1, Outbox(), certificates)
        running = asyncio.create_task(stream.run(site))
        renewing = asyncio.create_task(keep_certificate_fresh(certificates, stream.reopen))
        async with asyncio.timeout(60):
            while site.welcomes < 4:
                site.welcomed.clear()
                await site.welcomed.wait()
        newest = certificates.proof()
        assert first and newest and newest.certificate != first.certificate
        assert newest.key == first.key
        await platform.services.access.sites.revoke(ROOT, "gz")
        async with asyncio.timeout(5):
            with pytest.raises(RefusedForGoodError, match="SITE_REVOKED"):
                await running
        renewing.cancel()
        await asyncio.wait({renewing})
        enrolment = json.loads((config.state_dir / "tls/enrolment.json").read_text())
        assert enrolment["coordinators"] == [platform.people]
