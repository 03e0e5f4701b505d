"""The coordinator's configuration file."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from mumian.api.v1.fleet_pb2 import Zone
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.adapters.etcd.client import Credentials
from mumian_orchestrator.adapters.grpc.server import ConnectionLimits
from mumian_orchestrator.domain.arrangement import SearchLimits
from mumian_orchestrator.domain.identity import Role
from mumian_orchestrator.domain.names import is_name
from mumian_orchestrator.domain.shares import ALL_ALIKE, ShareRules
from mumian_orchestrator.main.share_rules import share_rules
from mumian_orchestrator.ports.identity_provider import is_trustworthy
from mumian_orchestrator.services.access.authentication import ClaimMapping
from mumian_orchestrator.services.archive import ArchivePolicy
from mumian_orchestrator.services.brake import BrakePolicy

OBJECTIVES = {
    name.removeprefix("OBJECTIVE_").lower(): value
    for name, value in engine_pb2.Objective.items()
    if value != engine_pb2.OBJECTIVE_UNSPECIFIED
}


class ConfigError(Exception):
    """A configuration that cannot be used, in one line that names the field and says what to do."""


@dataclass(frozen=True, slots=True)
class OidcConfig:
    """An identity provider whose tokens are taken; none while the issuer is empty."""

    issuer: str = ""
    audience: str = ""
    ca_file: str = ""  # of the issuer's TLS; empty: the system's authorities
    mapping: ClaimMapping = field(default_factory=ClaimMapping)


@dataclass(frozen=True, slots=True)
class Config:
    """What a coordinator needs to know. The defaults are those of one machine."""

    listen: str = "127.0.0.1:7070"
    advertise: str = ""  # where the other coordinators reach it; empty: where it listens
    etcd: tuple[str, ...] = ("127.0.0.1:2379",)
    etcd_ca: str = ""  # files, in PEM: etcd's authority, and what this coordinator proves itself by
    etcd_cert: str = ""
    etcd_key: str = ""
    key_prefix: str = "/mumian/"
    # TLS and access control are on when one of the first two is set.
    state_dir: str = ""  # a folder of this coordinator's own, with the embedded authority
    ca_cert: str = ""  # an authority of one's own instead; PEM files
    ca_key: str = ""  # empty beside ca_cert: certificates are issued elsewhere, the coordinator's too
    listen_agents: str = ""  # empty: the port after that of `listen`
    tls_cert: str = ""  # what people's door proves itself by, instead of a certificate of the authority
    tls_key: str = ""
    tls_names: tuple[str, ...] = ()  # more names and addresses by which it is reached
    certificate_lifetime_s: int = 86_400  # of coordinators and agents; renewed at half of it
    oidc: OidcConfig = OidcConfig()
    zones: tuple[Zone, ...] = ()
    carbon_kg_microcny: int = 80_000  # CNY 80 a tonne, about the national market's price
    objective: str = "cost"
    preempt: bool = False  # whether jobs may evict work of lower priority
    # One move of a task, spread over so many hours. It keeps services from moving for nearly nothing.
    migration_microcny: int = 10_000
    migration_horizon_h: int = 24
    fragmentation_microcny_per_device_hour: int = 0  # a device made useless for the tasks that wait
    reoptimize_interval_s: int = 0  # 0: only when somebody asks
    reoptimize_moves_max: int = 10  # services that one run may move
    reoptimize_time_limit_ms: int = 1000  # for the search of one run
    heartbeat_interval_ms: int = 1000
    unreachable_after_ms: int = 10_000
    lease_ttl_s: int = 5
    # A folder for what tenants upload, which several coordinators share; empty: they can upload nothing.
    bundles_dir: str = ""
    bundle_max_mib: int = 64  # of one, packed
    bundles_max_mib: int = 10_240  # of all together
    # A folder for months of the ledger and of the audit log that were put away, which several coordinators
    # share; empty: none are.
    records_dir: str = ""
    # A file: tenants' secrets are encrypted with its first key, the others still decrypt. The same for all
    # coordinators. Empty: a file in `state_dir`, made there; without either there are no secrets.
    secrets_key: str = ""
    # A folder of this coordinator's own for what its engine was told, asked and has answered, so that a
    # decision can be explained afterwards; empty: nothing is kept.
    decisions_dir: str = ""
    decisions_keep_mib: int = 512  # the oldest goes
    shares: ShareRules = ALL_ALIKE  # quotas, guarantees and weights of the tenants
    budget_window_ms: int = 3_600_000  # what has no time limit is paid for in windows of so long
    # Of all doors together; and how long one without a call lasts.
    connections_max: int = 20_000
    connection_idle_s: int = 60
    metrics: str = ""  # host:port where Prometheus scrapes; empty: nowhere
    solver_deadline_ms: int = 5000  # then a simple placement goes on without the solver
    # Ended jobs are put away after a time, or before when there are more than so many; and deleted at last.
    archive_after_s: int = 86_400
    archive_ended_max: int = 20_000
    archive_keep_days: int = 90
    # No replacements while more than this share of the sites has vanished within the window.
    brake_share_percent: int = 50
    brake_window_ms: int = 60_000
    brake_release_after_ms: int = 600_000

    @property
    def connection_limits(self) -> ConnectionLimits:
        """What its doors take."""
        return ConnectionLimits(self.connections_max, self.connection_idle_s)

    @property
    def is_secure(self) -> bool:
        """Whether there is TLS, and whoever calls has to prove who it is."""
        return bool(self.state_dir or self.ca_cert)

    @property
    def agents_door(self) -> str:
        """Where agents and other coordinators are taken, by certificate."""
        if self.listen_agents:
            return self.listen_agents
        host, port = host_and_port("listen", self.listen)
        return f"{host}:{port + 1}"

    @property
    def address(self) -> str:
        """Where the other coordinators reach it."""
        return self.advertise or (self.agents_door if self.is_secure else self.listen)

    @property
    def search_limits(self) -> SearchLimits:
        """Of the optimiser's runs."""
        return SearchLimits(self.reoptimize_time_limit_ms, self.reoptimize_moves_max)

    @property
    def policy(self) -> engine_pb2.Policy:
        """The platform's own terms of the cost."""
        return engine_pb2.Policy(
            carbon_kg_microcny=self.carbon_kg_microcny,
            objective=OBJECTIVES[self.objective],
            preempt=self.preempt,
            migration_microcny=self.migration_microcny,
            migration_horizon_h=self.migration_horizon_h,
            fragmentation_microcny_per_device_hour=self.fragmentation_microcny_per_device_hour,
        )

    @property
    def archive(self) -> ArchivePolicy:
        """When ended jobs are put away."""
        return ArchivePolicy(self.archive_after_s, self.archive_ended_max, self.archive_keep_days)

    @property
    def brake(self) -> BrakePolicy:
        """When the vanishing of many sites holds back replacements."""
        return BrakePolicy(
            self.brake_share_percent, self.brake_window_ms / 1000, self.brake_release_after_ms / 1000
        )


def load(path: Path) -> Config:
    """Read a YAML file.

    Raises:
        ConfigError: it cannot be read, or a field is unknown or wrong.
    """
    raw = read_mapping(path)
    fields = {field.name: field for field in dataclasses.fields(Config)}
    for name in raw:
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, 1)
            advice = f"did you mean {near[0]}?" if near else f"known: {', '.join(fields)}"
            raise ConfigError(f"{name} in {path} is unknown; {advice}")
    if "zones" in raw:
        raw["zones"] = _zones(raw["zones"])
    if "shares" in raw:
        raw["shares"] = _shares(raw["shares"])
    if "etcd" in raw:
        raw["etcd"] = _endpoints(raw["etcd"])
    if "tls_names" in raw:
        raw["tls_names"] = _names(raw["tls_names"])
    if "oidc" in raw:
        raw["oidc"] = _oidc(raw["oidc"])
    for name, value in raw.items():
        wanted = type(fields[name].default)
        if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
            raise ConfigError(f"{name} ({value!r}) in {path} must be of type {wanted.__name__}")
        if isinstance(value, int) and wanted is int and value <= 0:
            raise ConfigError(f"{name} ({value}) in {path} must be positive")
    config = Config(**raw)
    if config.objective not in OBJECTIVES:
        raise ConfigError(f"objective ({config.objective!r}) is unknown; use one of {', '.join(OBJECTIVES)}")
    if config.shares.guarantee_anything and not config.preempt:
        raise ConfigError(
            "shares guarantee something, and preempt is off; set preempt: true, since what others have "
            "borrowed is taken back by evicting it"
        )
    host_and_port("listen", config.listen)
    if config.metrics:
        host_and_port("metrics", config.metrics)
    etcd_credentials(config)
    _check_security(config)
    return config


def _check_security(config: Config) -> None:
    if config.listen_agents:
        host_and_port("listen_agents", config.listen_agents)
    needed = {
        "ca_key": bool(config.ca_cert),
        "tls_key": bool(config.tls_cert),
        "tls_cert": bool(config.tls_key),
    }
    for name, goes in needed.items():
        other = {"ca_key": "ca_cert", "tls_key": "tls_cert", "tls_cert": "tls_key"}[name]
        if getattr(config, name) and not goes:
            raise ConfigError(f"{name} ({getattr(config, name)}) says nothing without {other}; set both")
    if config.tls_cert and not config.tls_key:
        raise ConfigError(f"tls_cert ({config.tls_cert}) says nothing without tls_key; set both")
    if config.ca_cert and not config.ca_key and not config.tls_cert:
        raise ConfigError(
            f"ca_cert ({config.ca_cert}) without ca_key: then tls_cert and tls_key must be what that "
            "authority has issued to this coordinator"
        )
    for name in ("listen_agents", "tls_cert", "tls_names", "oidc"):
        if getattr(config, name) != getattr(Config(), name) and not config.is_secure:
            raise ConfigError(
                f"{name} says nothing without TLS; set state_dir (or ca_cert), which turns it on"
            )


def _names(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(name, str) and name for name in raw):
        raise ConfigError(f"tls_names ({raw!r}) must be a list of host names and addresses")
    return tuple(raw)


def _oidc(raw: Any) -> OidcConfig:
    known = {"issuer", "audience", "ca_file", "tenant_claim", "operator_claim", "roles_claim", "roles"}
    if not isinstance(raw, dict) or not raw.keys() <= known:
        raise ConfigError(f"oidc ({raw!r}) must be a mapping of {', '.join(sorted(known))}")
    texts = {name: value for name, value in raw.items() if name != "roles"}
    for name, value in texts.items():
        if not isinstance(value, str) or not value:
            raise ConfigError(f"oidc.{name} ({value!r}) must be a text")
    for name in ("issuer", "audience"):
        if name not in texts:
            raise ConfigError(
                f"oidc.{name} is missing; a token counts only from one issuer, for one audience"
            )
    if not is_trustworthy(texts["issuer"]):
        raise ConfigError(
            f"oidc.issuer ({texts['issuer']}) must be https; whoever is on the way could be anybody"
        )
    roles = raw.get("roles", {str(role): str(role) for role in Role})
    if not isinstance(roles, dict):
        raise ConfigError(f"oidc.roles ({roles!r}) must map the provider's names to {', '.join(Role)}")
    for name, role in roles.items():
        if role not in set(Role):
            raise ConfigError(f"oidc.roles.{name} ({role!r}) is no role; use one of {', '.join(Role)}")
    claims = {name: texts[name] for name in texts if name.endswith("_claim")}
    mapping = ClaimMapping(**claims, roles={str(name): Role(role) for name, role in roles.items()})
    return OidcConfig(texts["issuer"], texts["audience"], texts.get("ca_file", ""), mapping)


def _shares(raw: Any) -> ShareRules:
    try:
        return share_rules(raw)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def etcd_credentials(config: Config) -> Credentials | None:
    """What TLS to etcd needs, read from its files; None where it is not wanted.

    Raises:
        ConfigError: a part is missing or cannot be read.
    """
    files = {name: getattr(config, name) for name in ("etcd_ca", "etcd_cert", "etcd_key")}
    missing = [name for name, file in files.items() if not file]
    if len(missing) == len(files):
        return None
    if missing:
        raise ConfigError(f"{' and '.join(missing)} must be set too: TLS to etcd needs {', '.join(files)}")
    contents = []
    for name, file in files.items():
        try:
            contents.append(Path(file).read_bytes())
        except OSError as error:
            raise ConfigError(f"{name} ({file}) cannot be read: {error.strerror}") from error
        if b"-----BEGIN " not in contents[-1]:
            raise ConfigError(f"{name} ({file}) is no PEM file")
    ca, certificate, key = contents
    return Credentials(ca=ca, certificate=certificate, key=key)


def read_mapping(path: Path) -> dict[str, Any]:
    """What a YAML file says of its fields; nothing where it is empty.

    Raises:
        ConfigError: it cannot be read, or is something else.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"config {path} is no YAML: {' '.join(str(error).split())}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict) or not all(isinstance(name, str) for name in raw):
        raise ConfigError(f"config {path} must be a mapping of fields to values")
    return raw


def host_and_port(name: str, address: str) -> tuple[str, int]:
    """The two parts of an address.

    Raises:
        ConfigError: it has another form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{name} ({address!r}) must be host:port, such as 127.0.0.1:7070")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _endpoints(raw: Any) -> tuple[str, ...]:
    endpoints = [raw] if isinstance(raw, str) else raw
    if not isinstance(endpoints, list) or not endpoints or not all(isinstance(e, str) for e in endpoints):
        raise ConfigError(f"etcd ({raw!r}) must be host:port, or a list of the cluster's members")
    for endpoint in endpoints:
        host_and_port("etcd", endpoint)
    return tuple(endpoints)


def _zones(raw: Any) -> tuple[Zone, ...]:
    if not isinstance(raw, list):
        raise ConfigError(f"zones ({raw!r}) must be a list of {{id, title, reflector}}")
    zones: list[Zone] = []
    for number, entry in enumerate(raw):
        if not isinstance(entry, dict) or not set(entry) <= {"id", "title", "reflector"}:
            raise ConfigError(f"zones[{number}] ({entry!r}) must have id, title and reflector, nothing else")
        zone_id = str(entry.get("id", ""))
        if not is_name(zone_id):
            raise ConfigError(f"zones[{number}].id ({zone_id!r}) is no valid name; use a-z, 0-9 and -")
        if any(zone.id == zone_id for zone in zones):
            raise ConfigError(f"zones[{number}].id ({zone_id}) is taken by an earlier zone")
        reflector = str(entry.get("reflector", ""))
        if reflector:
            host_and_port(f"zones[{number}].reflector", reflector.removeprefix("grpc://"))
        zones.append(Zone(id=zone_id, title=str(entry.get("title", zone_id)), reflector=reflector))
    return tuple(zones)
