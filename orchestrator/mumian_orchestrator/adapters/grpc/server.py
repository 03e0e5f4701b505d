"""One port for tenants, ops and agents, with health and reflection: of a leader, and of a follower."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from mumian.agent.v1 import agent_service_pb2, agent_service_pb2_grpc
from mumian.api.v1 import (
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    ops_service_pb2,
    ops_service_pb2_grpc,
    planning_service_pb2,
    planning_service_pb2_grpc,
)

from mumian_orchestrator.adapters.grpc.agent_service import AgentService
from mumian_orchestrator.adapters.grpc.fleet_service import FleetService
from mumian_orchestrator.adapters.grpc.forwarding import Forwarding
from mumian_orchestrator.adapters.grpc.job_service import JobService
from mumian_orchestrator.adapters.grpc.ops_service import OpsService
from mumian_orchestrator.adapters.grpc.planning_service import PlanningService

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # Two coordinators on one port would share its connections at random.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    # While one of gRPC's own pings is out no keepalive is sent, and by default it waits a minute for it.
    ("grpc.http2.ping_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
)
_SERVICES = (
    job_service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
    fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"].full_name,
    planning_service_pb2.DESCRIPTOR.services_by_name["PlanningService"].full_name,
    ops_service_pb2.DESCRIPTOR.services_by_name["OpsService"].full_name,
    agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name,
)


Server = grpc.aio.Server


class PortTakenError(Exception):
    """The address cannot be listened on."""


async def start_leading(
    listen: str,
    jobs: JobService,
    fleet: FleetService,
    planning: PlanningService,
    ops: OpsService,
    agents: AgentService,
) -> Server:
    """Serve on `listen` (host:port) as the leader.

    Raises:
        PortTakenError: somebody else listens there, or the address is not this machine's.
    """
    server = grpc.aio.server(options=_OPTIONS)
    job_service_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    fleet_service_pb2_grpc.add_FleetServiceServicer_to_server(fleet, server)
    planning_service_pb2_grpc.add_PlanningServiceServicer_to_server(planning, server)
    ops_service_pb2_grpc.add_OpsServiceServicer_to_server(ops, server)
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
    return await _start(server, listen)


async def start_following(listen: str, forwarding: Forwarding) -> Server:
    """Serve the same on `listen` by asking the leader.

    Raises:
        PortTakenError: as above.
    """
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((forwarding,))
    return await _start(server, listen)


async def _start(server: Server, listen: str) -> Server:
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in ("", *_SERVICES):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        server.add_insecure_port(listen)
    except RuntimeError:
        raise PortTakenError(
            f"listen ({listen}) cannot be listened on; is another coordinator there?"
        ) from None
    await server.start()
    return server
