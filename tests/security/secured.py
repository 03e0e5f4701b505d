"""A leader with TLS and access control on its real doors, over a store in memory; all else is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.timestamp_pb2 import Timestamp
from mumian.agent.v1 import enrolment_service_pb2 as enrolment
from mumian.agent.v1.enrolment_service_pb2_grpc import EnrolmentServiceStub
from mumian.api.v1.access_pb2 import ApiToken
from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.disk.bundle_store import DiskBundleStore
from mumian_orchestrator.adapters.grpc.access_service import AccessService
from mumian_orchestrator.adapters.grpc.agent_service import AgentService
from mumian_orchestrator.adapters.grpc.enrolment_service import EnrolmentService
from mumian_orchestrator.adapters.grpc.fleet_service import FleetService
from mumian_orchestrator.adapters.grpc.guard import Guard
from mumian_orchestrator.adapters.grpc.job_service import JobService
from mumian_orchestrator.adapters.grpc.money_service import MoneyService
from mumian_orchestrator.adapters.grpc.ops_service import OpsService
from mumian_orchestrator.adapters.grpc.planning_service import PlanningService
from mumian_orchestrator.adapters.grpc.secret_service import SecretService
from mumian_orchestrator.adapters.grpc.server import start_leading
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.domain.audit import Head
from mumian_orchestrator.domain.identity import Caller, Role
from mumian_orchestrator.main.composition import Services, compose
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.main.free_ports import free_port
from mumian_orchestrator.main.security import Security, doors_of, secret_box_of, security_of
from mumian_orchestrator.services.leadership import campaign
from mumian_orchestrator.services.store.fenced import FencedStore

ROOT = Caller("root", frozenset({Role.PLATFORM_ADMIN}))


class ShiftedClock(SystemClock):
    """The machine's clock, some seconds ahead."""

    def __init__(self) -> None:
        self.ahead_s = 0

    def now(self) -> Timestamp:
        stamp = super().now()
        stamp.FromNanoseconds(stamp.ToNanoseconds() + self.ahead_s * 10**9)
        return stamp


class SiteKey:
    """The key of an agent, with the request and, once it has joined, the certificate."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        self.request = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
        self.certificate = b""


@dataclass
class Secured:
    """What a test needs to knock at the doors."""

    services: Services
    security: Security
    clock: ShiftedClock
    people: str  # host:port
    agents: str
    ca_file: Path  # of the embedded authority

    @property
    def authority(self) -> bytes:
        """PEM."""
        return self.security.authority.pem

    def people_channel(self, options: Sequence[tuple[str, int]] = ()) -> grpc.aio.Channel:
        """As a tenant connects."""
        return grpc.aio.secure_channel(
            self.people, grpc.ssl_channel_credentials(self.authority), options=options
        )

    def agent_channel(self, key: bytes, certificate: bytes) -> grpc.aio.Channel:
        """As an agent connects."""
        credentials = grpc.ssl_channel_credentials(self.authority, key, certificate)
        return grpc.aio.secure_channel(self.agents, credentials)

    def coordinator_channel(self) -> grpc.aio.Channel:
        """As a follower connects."""
        pair = self.security.agents()
        return self.agent_channel(pair.key, pair.chain)

    async def log(self) -> tuple[list[bytes], Head]:
        """The audit log as it is stored."""
        audit = self.services.access.audit
        head = await audit.stored_head()
        return [line async for lines in audit.stored_entries(head) for line in lines], head

    async def token(self, role: Role, tenant_id: str = "", operator_id: str = "", lifetime_s: int = 0) -> str:
        """A new API token."""
        wanted = ApiToken(title="test", role=role.wire, tenant_id=tenant_id, operator_id=operator_id)
        return (await self.services.access.tokens.create(ROOT, wanted, lifetime_s))[1]

    async def site_token(self, site_id: str = "gz", operator_id: str = "op") -> str:
        """A new token to join by."""
        return (await self.services.access.sites.create_token(ROOT, site_id, operator_id))[0]

    async def join(self, key: SiteKey, token: str) -> enrolment.SiteCertificate:
        """Join over the wire."""
        async with self.people_channel() as channel:
            request = enrolment.JoinRequest(token=token, certificate_request=key.request)
            got = (await EnrolmentServiceStub(channel).Join(request)).certificate
        key.certificate = got.certificate
        return got

    async def joined(self, site_id: str = "gz", operator_id: str = "op") -> SiteKey:
        """A key that has joined."""
        key = SiteKey()
        await self.join(key, await self.site_token(site_id, operator_id))
        return key


def bearer(token: str, *more: tuple[str, str | bytes]) -> tuple[tuple[str, str | bytes], ...]:
    """Metadata with a token."""
    return (("authorization", f"Bearer {token}"), *more)


@asynccontextmanager
async def secured(
    folder: Path, cluster: MemoryCluster | None = None, **fields: object
) -> AsyncIterator[Secured]:
    """A leader at work. `fields`: of its configuration."""
    people, agents = (f"127.0.0.1:{free_port()}" for _ in range(2))
    named: dict[str, object] = {"listen": people, "listen_agents": agents, "state_dir": str(folder), **fields}
    config, clock = Config(**named), ShiftedClock()  # type: ignore[arg-type]
    security = security_of(config, clock)
    assert security is not None
    kv = MemoryKeyValue(cluster or MemoryCluster())
    term = await campaign(kv, f"{config.key_prefix}leader", "test", config.lease_ttl_s)
    store = FencedStore(kv, config.key_prefix, term)
    engine, bundles = CoreEngine(config.policy), DiskBundleStore(folder / "bundles")
    box = secret_box_of(config)
    services = compose(config, term.number, store, engine, clock, None, bundles, security, box)
    services.load((await store.load()).entries)
    access = services.access
    assert access.authentication is not None
    guard = Guard(access.authentication, access.audit)
    access.tokens.on_revoked = guard.end_streams
    server = await start_leading(
        doors_of(config, security),
        config.connection_limits,
        guard,
        JobService(services.admission, services.endpoints, services.bundles),
        FleetService(services.fleet, services.disconnections),
        PlanningService(services.reoptimisation, services.what_if, config.search_limits),
        OpsService(services.diagnosis),
        MoneyService(services.treasury),
        AgentService(services.sessions, services.reports, services.bundles, access.sites),
        AccessService(access.tokens, access.sites, access.audit),
        SecretService(services.secrets),
        EnrolmentService(access.sites),
    )
    running = asyncio.create_task(services.run())
    try:
        yield Secured(services, security, clock, people, agents, folder / "authority.pem")
    finally:
        services.sessions.close_all("the test is over")
        await server.stop(None)
        running.cancel()
        await asyncio.wait({running})
        await term.resign()
