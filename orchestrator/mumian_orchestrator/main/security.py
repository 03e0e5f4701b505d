"""What a coordinator proves itself by, and whom it believes, from its configuration."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from mumian_orchestrator.adapters.fernet.secret_box import FernetBox, KeyFileError
from mumian_orchestrator.adapters.grpc.forwarding import Proof
from mumian_orchestrator.adapters.grpc.server import Door
from mumian_orchestrator.adapters.grpc.tls import server_credentials
from mumian_orchestrator.adapters.oidc.provider import OidcProvider
from mumian_orchestrator.adapters.x509 import serving
from mumian_orchestrator.adapters.x509.authority import AuthorityFileError, KeyPair, X509Authority
from mumian_orchestrator.main.config import Config, ConfigError, host_and_port, is_loopback
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.identity_provider import IdentityProvider
from mumian_orchestrator.ports.secret_box import SecretBox
from mumian_orchestrator.services.access.authentication import ClaimMapping

SECRETS_KEY = "secrets.key"  # in a coordinator's state_dir
_ANY_ADDRESS = frozenset({"0.0.0.0", "::", ""})


@dataclass(frozen=True, slots=True)
class Security:
    """All of it. Without one whoever reaches the coordinator may do anything, so only this machine can."""

    authority: X509Authority
    people: Callable[[], KeyPair]
    agents: Callable[[], KeyPair]
    provider: IdentityProvider | None
    mapping: ClaimMapping

    @property
    def proof(self) -> Proof:
        """Towards the coordinator that leads."""
        return Proof(self.authority.pem, self.agents)


def security_of(config: Config, clock: Clock) -> Security | None:
    """What is configured; None: nothing.

    Raises:
        ConfigError: a file cannot be used.
    """
    if not config.is_secure:
        return None
    try:
        authority = authority_of(config, clock)
        given = serving.of_files(Path(config.tls_cert), Path(config.tls_key)) if config.tls_cert else None
        own = serving.issued(authority, _names(config), clock) if authority.can_issue else given
    except AuthorityFileError as error:
        raise ConfigError(str(error)) from None
    assert own is not None  # the configuration was checked
    oidc = config.oidc
    try:
        provider = OidcProvider(oidc.issuer, oidc.audience, oidc.ca_file) if oidc.issuer else None
    except OSError as error:
        raise ConfigError(
            f"oidc.ca_file ({oidc.ca_file}) cannot be used: {error.strerror or error}"
        ) from None
    return Security(authority, given or own, own, provider, oidc.mapping)


def secret_box_of(config: Config) -> SecretBox | None:
    """What tenants' secrets are encrypted with; None: there can be none.

    Raises:
        ConfigError: the keys cannot be used.
    """
    try:
        if config.secrets_key:
            return FernetBox(Path(config.secrets_key))
        return FernetBox.made_in(Path(config.state_dir) / SECRETS_KEY) if config.state_dir else None
    except KeyFileError as error:
        raise ConfigError(f"secrets_key: {error}") from None


def authority_of(config: Config, clock: Clock, *, make: bool = True) -> X509Authority:
    """The authority that is configured; the embedded one is made where there is none yet, if `make` says so.

    Raises:
        AuthorityFileError: its files cannot be used.
    """
    if not config.ca_cert:
        if not make and not X509Authority.is_in(Path(config.state_dir)):
            raise AuthorityFileError(
                f"state_dir ({config.state_dir}) has no authority; give this command on the coordinator's "
                "machine, as its user, after its first start"
            )
        return X509Authority.embedded(Path(config.state_dir), clock, config.certificate_lifetime_s)
    try:
        key = Path(config.ca_key).read_bytes() if config.ca_key else None
        return X509Authority(Path(config.ca_cert).read_bytes(), key, clock, config.certificate_lifetime_s)
    except OSError as error:
        raise AuthorityFileError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from None


def doors_of(config: Config, security: Security | None) -> list[Door]:
    """Where to listen: people's door, and agents', who must show a certificate; without TLS one for all."""
    if security is None:
        return [Door(config.listen)]
    return [
        Door(config.listen, partial(server_credentials, security.people, None)),
        Door(config.agents_door, partial(server_credentials, security.agents, security.authority.pem)),
    ]


def refuse_open_doors(config: Config, *, exposes_metrics: bool) -> None:
    """Nothing is reachable from other machines without TLS and proof of who one is.

    Raises:
        ConfigError: something would be.
    """
    if not config.is_secure and not is_loopback(host_and_port("listen", config.listen)[0]):
        raise ConfigError(
            f"listen ({config.listen}) can be reached from other machines, and whoever reaches it may do "
            "anything; set state_dir to a folder, which turns TLS and access control on, or listen on "
            "127.0.0.1"
        )
    for endpoint in config.etcd:
        if not config.etcd_ca and not is_loopback(host_and_port("etcd", endpoint)[0]):
            raise ConfigError(
                f"etcd ({endpoint}) is on another machine, and all that is stored would go there in the "
                "clear; set etcd_ca, etcd_cert and etcd_key"
            )
    if (
        config.metrics
        and not exposes_metrics
        and not is_loopback(host_and_port("metrics", config.metrics)[0])
    ):
        raise ConfigError(
            f"metrics ({config.metrics}) can be reached from other machines, without TLS and for everybody; "
            "listen on 127.0.0.1, or add --expose-metrics on a network that you trust"
        )


def console_user() -> str:
    """Who gives a command on this machine, as the audit log is to name it."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _names(config: Config) -> tuple[str, ...]:
    """The names and addresses that callers may know this coordinator by."""
    hosts = [host_and_port("address", a)[0] for a in (config.listen, config.agents_door, config.address)]
    names = [*config.tls_names, *(host.strip("[]") for host in hosts), "localhost", "127.0.0.1"]
    if any(host.strip("[]") in _ANY_ADDRESS for host in hosts):
        names.append(socket.gethostname())
        for addresses in psutil.net_if_addrs().values():
            names += [a.address for a in addresses if a.family in (socket.AF_INET, socket.AF_INET6)]
    # A link-local address has its interface behind it, which no certificate names.
    return tuple(dict.fromkeys(name.partition("%")[0] for name in names if name not in _ANY_ADDRESS))
