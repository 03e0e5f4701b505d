"""`mumian-agent join`, and the certificate that is renewed for as long as the agent runs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from mumian_agent.adapters.grpc import enrolment as calls
from mumian_agent.adapters.grpc.enrolment import JoinError
from mumian_agent.domain.config import AgentConfig
from mumian_agent.domain.fields import ConfigError, host_and_port, is_loopback
from mumian_agent.domain.site_token import SiteToken
from mumian_agent.runtime.certificates import Certificates, Enrolment, is_due

log = logging.getLogger(__name__)

_LOOK_EVERY_S, _TRY_AGAIN_AFTER_S = 1.0, 30.0


def join(config: AgentConfig, coordinator: str, token: SiteToken, *, new_key: bool) -> str:
    """Make the site's key, and get its first certificate; what has been done, in words.

    Raises:
        ConfigError: the token is of another site.
        JoinError: the coordinator does not answer, is not the token's, or refuses.
    """
    site_id = config.site.id
    if token.site_id != site_id:
        raise ConfigError(
            f"the token is for site {token.site_id}, and site.id of the configuration is {site_id}"
        )
    # Imported here: it takes 6 MiB, and a site joins once.
    from mumian_agent.runtime.site_key import request_of

    certificates = Certificates(config.state_dir)
    request = request_of(certificates, site_id, new_key=new_key)
    got = calls.join(coordinator, token, request)
    enrolment = Enrolment(site_id, (coordinator,), got.issue_time.seconds, got.expire_time.seconds)
    if request != _current_request(certificates):
        certificates.take_new_key()
    certificates.store(got.certificate, got.authority, enrolment)
    told = f"joined: site {site_id}; its key is in {certificates.folder}, certificates are renewed by `run`"
    host, (_, port) = coordinator.rpartition(":")[0], host_and_port(got.agents_door)
    if f"{host}:{port}" not in config.coordinators:
        told += f"\nagents connect to another port: write `coordinator: {host}:{port}` into the configuration"
    return told


def _current_request(certificates: Certificates) -> bytes:
    return certificates.request_file.read_bytes() if certificates.request_file.exists() else b""


def refuse_the_open_network(config: AgentConfig, certificates: Certificates) -> None:
    """Without a certificate the agent talks within this machine only.

    Raises:
        ConfigError: the site has not joined, or as another one.
    """
    enrolment = certificates.enrolment()
    if enrolment is not None and enrolment.site_id != config.site.id:
        raise ConfigError(
            f"state_dir ({config.state_dir}) is of site {enrolment.site_id}, and site.id is "
            f"{config.site.id}; join again with a token for it"
        )
    for address in config.coordinators if not certificates.exist() else ():
        if not is_loopback(host_and_port(address)[0]):
            raise ConfigError(
                f"coordinator ({address}) is on another machine, and this site has not joined; ask for a "
                "token, and `mumian-agent join --config FILE --coordinator HOST:PORT --token-file TOKEN`"
            )


def doors_for_tasks(config: AgentConfig, certificates: Certificates) -> tuple[str, ...]:
    """Where tasks reach the coordinators: as people do, for the agents' door takes certificates only."""
    enrolment = certificates.enrolment()
    return enrolment.coordinators if enrolment is not None else config.coordinators


async def keep_certificate_fresh(certificates: Certificates, reopen: Callable[[], None]) -> None:
    """Renew the certificate at half its life, for ever; then the stream is opened anew with it."""
    while True:
        enrolment, proof = certificates.enrolment(), certificates.proof()
        if enrolment is None or proof is None or not is_due(enrolment):
            await asyncio.sleep(_LOOK_EVERY_S)
            continue
        try:
            request = certificates.request_file.read_bytes()
            got = await calls.renew(enrolment.coordinators, proof.authority, enrolment.site_id, request)
        except (JoinError, OSError) as error:
            log.warning("the certificate was not renewed: %s", error)
            left_s = max(1.0, enrolment.expire_unix_s - enrolment.renew_unix_s)
            await asyncio.sleep(min(_TRY_AGAIN_AFTER_S, left_s / 10) * random.uniform(0.8, 1.2))
            continue
        fresh = Enrolment(
            enrolment.site_id, enrolment.coordinators, got.issue_time.seconds, got.expire_time.seconds
        )
        certificates.store(got.certificate, got.authority, fresh)
        log.info("the certificate of site %s was renewed", enrolment.site_id)
        reopen()
