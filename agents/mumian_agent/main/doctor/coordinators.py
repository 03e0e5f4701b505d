"""Whether the coordinators would take this site: its certificate, the way to them, the clocks."""

from __future__ import annotations

import stat
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import grpc
from cryptography import x509
from mumian.agent.v1.agent_pb2 import CheckSiteRequest, CheckSiteResponse
from mumian.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from mumian.api.v1.ops_service_pb2 import Finding
from mumian.errors import from_rpc_error
from mumian.findings import fail, ok, own_clock_finding, warn

from mumian_agent.adapters.grpc.channels import open_channel
from mumian_agent.domain.config import AgentConfig
from mumian_agent.domain.fields import ConfigError
from mumian_agent.main.joining import refuse_the_open_network
from mumian_agent.runtime.certificates import Certificates

_ANSWER_WITHIN_S = 5.0
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
_JOIN = "ask the operator for a token, and `mumian-agent join`"
_ADVICE = {
    "CLOCK_SKEW": "set both clocks by NTP",
    "SITE_REVOKED": _JOIN,
    "PERMISSION_DENIED": _JOIN,
    "UNAUTHENTICATED": _JOIN,
    "INVALID_FIELD": "correct the section `site`",
}


def certificates(config: AgentConfig) -> Iterator[Finding]:
    """What the site proves itself by."""
    held = Certificates(config.state_dir)
    try:
        refuse_the_open_network(config, held)
        enrolment, proof = held.enrolment(), held.proof()
        certificate = x509.load_pem_x509_certificate(proof.certificate) if proof else None
    except (ConfigError, ValueError) as error:
        yield fail("certificate", str(error), _JOIN)
        return
    if certificate is None:
        yield ok("certificate", "the site has not joined; to a coordinator on this machine it need not")
        return
    until = certificate.not_valid_after_utc
    said = f"the certificate is good until {until:%Y-%m-%d %H:%M} UTC"
    if until < datetime.now(UTC):
        yield fail("certificate", f"{said}, and that is over", _JOIN)
    elif enrolment is not None and time.time() > (enrolment.renew_unix_s + enrolment.expire_unix_s) / 2:
        yield warn("certificate", f"{said}, and ought to have been renewed", "see the agent's log")
    else:
        yield ok("certificate", said)
    for file in held.folder.glob("*key.pem"):
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            said = f"{file} can be read by others"
            yield warn("certificate.key", said, f"chmod 600 {file}; if others have read it, join --new-key")


async def look(config: AgentConfig, agent_runs: bool) -> AsyncIterator[Finding]:
    """Each coordinator, asked whether it would take this site."""
    held = Certificates(config.state_dir)
    for address in config.coordinators:
        request = CheckSiteRequest(site=config.site)
        begun_s = time.time()
        request.agent_time.FromNanoseconds(int(begun_s * 1e9))
        try:
            async with open_channel(address, held, _OPTIONS) as channel:
                answer = await AgentServiceStub(channel).CheckSite(request, timeout=_ANSWER_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            yield _refused(address, error)
            continue
        except ConfigError:
            continue  # told of the certificate
        ended_s = time.time()
        yield _taken(address, answer, 1000 * (ended_s - begun_s), agent_runs, config.site.id)
        yield own_clock_finding(answer.coordinator_time.ToNanoseconds() / 1e9, begun_s, ended_s)


def _refused(address: str, error: grpc.aio.AioRpcError) -> Finding:
    refusal = from_rpc_error(error, address)
    if refusal.reason == "CLIENT_UNREACHABLE":
        # gRPC's story of all its attempts ends with what happened.
        cause = (error.details() or "").rpartition(": ")[2].lower()
        advice = "see whether it runs, and whether a firewall lets this machine through to it"
        return fail("coordinator", f"{address} does not answer: {cause}", advice)
    advice = _ADVICE.get(refusal.reason, "see the coordinator's log")
    return fail("coordinator", f"{address} refuses: {refusal.message}", advice)


def _taken(
    address: str, answer: CheckSiteResponse, took_ms: float, agent_runs: bool, site_id: str
) -> Finding:
    if answer.is_connected and not agent_runs:
        said = f"{address}: another agent speaks for site {site_id}, and none runs on this state_dir"
        return fail("coordinator", said, "stop that one, or give this site an id of its own")
    state = "it is connected" if answer.is_connected else "it would be taken"
    return ok("coordinator", f"{address} knows site {site_id}: {state}; it answered in {took_ms:.0f} ms")
