"""The doors for tenants, ops and agents: of a leader, and of a follower. Without TLS one door is for all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import aio as reflection_aio
from mumian.agent.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    enrolment_service_pb2,
    enrolment_service_pb2_grpc,
)
from mumian.api.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    money_service_pb2,
    money_service_pb2_grpc,
    ops_service_pb2,
    ops_service_pb2_grpc,
    planning_service_pb2,
    planning_service_pb2_grpc,
    secret_service_pb2,
    secret_service_pb2_grpc,
)

from mumian_orchestrator.adapters.grpc.access_service import AccessService
from mumian_orchestrator.adapters.grpc.agent_service import AgentService
from mumian_orchestrator.adapters.grpc.enrolment_service import EnrolmentService
from mumian_orchestrator.adapters.grpc.fleet_service import FleetService
from mumian_orchestrator.adapters.grpc.forwarding import Forwarding
from mumian_orchestrator.adapters.grpc.guard import Guard
from mumian_orchestrator.adapters.grpc.job_service import JobService
from mumian_orchestrator.adapters.grpc.money_service import MoneyService
from mumian_orchestrator.adapters.grpc.ops_service import OpsService
from mumian_orchestrator.adapters.grpc.planning_service import PlanningService
from mumian_orchestrator.adapters.grpc.secret_service import SecretService

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
_PENDING_MAX = 20_000
# A server takes up one call in a turn of the event loop, first come, first served, whosever it is: before so
# many, a tenant that floods one coordinator would hold up all others where no fair queue sees it.
_SERVERS = 64
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.so_reuseport", 1),
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    # While one of gRPC's own pings is out no keepalive is sent, and by default it waits a minute for it.
    ("grpc.http2.ping_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    # No compressed requests: a small one could grow to any size here. (A bit set; bit 0 is "as it is".)
    ("grpc.compression_enabled_algorithms_bitset", 1),
    # Who connects and says nothing, or says it slowly, goes soon.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_concurrent_streams", 10_000),
    # gRPC would cancel calls at random while more than 1,000 are not taken up yet. They are taken up at once,
    # to be put in their tenant's line, or to be told when to come again.
    ("grpc.server.max_pending_requests", _PENDING_MAX),
    ("grpc.server.max_pending_requests_hard_limit", _PENDING_MAX),
)
_SERVICES = (
    job_service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
    fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"].full_name,
    planning_service_pb2.DESCRIPTOR.services_by_name["PlanningService"].full_name,
    ops_service_pb2.DESCRIPTOR.services_by_name["OpsService"].full_name,
    money_service_pb2.DESCRIPTOR.services_by_name["MoneyService"].full_name,
    agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name,
    access_service_pb2.DESCRIPTOR.services_by_name["AccessService"].full_name,
    secret_service_pb2.DESCRIPTOR.services_by_name["SecretService"].full_name,
    enrolment_service_pb2.DESCRIPTOR.services_by_name["EnrolmentService"].full_name,
)


class PortTakenError(Exception):
    """The address cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where to listen (host:port), and what each server there is given to serve with; None: without TLS."""

    listen: str
    credentials: Callable[[], grpc.ServerCredentials] | None = None


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be, of all doors together, and how long one without a call lasts.

    A connection whose first call never comes to be, however slowly it is sent, is one without a call.
    """

    count_max: int = 20_000
    idle_s: int = 60

    @property
    def options(self) -> list[tuple[str, int]]:
        """Of each of the servers: the kernel spreads connections by chance, so each takes twice its part."""
        each_max = max(2, 2 * self.count_max // _SERVERS)
        return [
            ("grpc.max_allowed_incoming_connections", each_max),
            ("grpc.max_connection_idle_ms", 1000 * self.idle_s),
        ]


class Server:
    """Some servers behind the same doors, among which the kernel spreads the connections."""

    def __init__(self, servers: Sequence[grpc.aio.Server]) -> None:
        self._servers = servers

    async def stop(self, grace_s: float | None) -> None:
        """Take nobody in, and end what is under way after the grace."""
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))

    async def wait_for_termination(self) -> None:
        """Until it is stopped."""
        await asyncio.gather(*(server.wait_for_termination() for server in self._servers))


async def start_leading(
    doors: Sequence[Door],
    limits: ConnectionLimits,
    guard: Guard | None,
    jobs: JobService,
    fleet: FleetService,
    planning: PlanningService,
    ops: OpsService,
    money: MoneyService,
    agents: AgentService,
    access: AccessService,
    secrets: SecretService,
    enrolment: EnrolmentService,
) -> Server:
    """Serve as the leader. Without a guard whoever reaches the door may do anything.

    Raises:
        PortTakenError: somebody else listens there, or the address is not this machine's.
    """

    methods: Any = _Methods()
    job_service_pb2_grpc.add_JobServiceServicer_to_server(jobs, methods)
    fleet_service_pb2_grpc.add_FleetServiceServicer_to_server(fleet, methods)
    planning_service_pb2_grpc.add_PlanningServiceServicer_to_server(planning, methods)
    ops_service_pb2_grpc.add_OpsServiceServicer_to_server(ops, methods)
    money_service_pb2_grpc.add_MoneyServiceServicer_to_server(money, methods)
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, methods)
    access_service_pb2_grpc.add_AccessServiceServicer_to_server(access, methods)
    secret_service_pb2_grpc.add_SecretServiceServicer_to_server(secrets, methods)
    enrolment_service_pb2_grpc.add_EnrolmentServiceServicer_to_server(enrolment, methods)
    return await _start(methods, doors, limits, [guard] if guard else [])


async def start_following(doors: Sequence[Door], limits: ConnectionLimits, forwarding: Forwarding) -> Server:
    """Serve the same by asking the leader, who checks what callers may do.

    Raises:
        PortTakenError: as above.
    """

    return await _start(forwarding, doors, limits, [])


class _Methods(grpc.GenericRpcHandler):
    """All methods of some services, made known to each server at once. To register them one by one at all
    servers took a new leader longer than all else that it does to take over.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a call; None: there is none."""
        return self._by_name.get(handler_call_details.method)

    # As a server has them, for the generated code.

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """A service's methods by their names."""
        self._by_name.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def add_generic_rpc_handlers(self, _: object) -> None:
        """The same methods once more."""


async def _start(
    answers: grpc.GenericRpcHandler,
    doors: Sequence[Door],
    limits: ConnectionLimits,
    interceptors: Sequence[Guard],
) -> Server:
    for door in doors:
        _refuse_if_taken(door.listen)
    checks = health.aio.HealthServicer()
    for name in ("", *_SERVICES):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    everybody: Any = _Methods()  # what leaders and followers answer alike
    health_pb2_grpc.add_HealthServicer_to_server(checks, everybody)
    if all(door.credentials is None for door in doors):
        # For people who look around on their own machine; strangers need not know what there is to try.
        names = (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection_aio.ReflectionServicer(names), everybody
        )
    options = [*_OPTIONS, *limits.options]
    servers = [grpc.aio.server(options=options, interceptors=interceptors) for _ in range(_SERVERS)]
    for server in servers:
        server.add_generic_rpc_handlers((answers, everybody))
        for door in doors:
            try:
                if door.credentials is None:
                    server.add_insecure_port(door.listen)
                else:
                    server.add_secure_port(door.listen, door.credentials())
            except RuntimeError:
                raise _taken(door.listen) from None
        await server.start()
    return Server(servers)


def _refuse_if_taken(listen: str) -> None:
    """Where servers share a port another coordinator could listen there as well, and would get some of the
    connections.
    """
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        for family, _, _, _, address in found:
            socket.create_server(address[:2], family=family).close()
    except OSError:
        raise _taken(listen) from None


def _taken(listen: str) -> PortTakenError:
    return PortTakenError(f"listen ({listen}) cannot be listened on; is another coordinator there?")
