"""`mumian up` and `mumian down`: the whole platform on one machine, as commands of the tenant's CLI."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from mumian.cli.json_output import print_json_line
from mumian.cli.session import Session, output_option, pass_session
from mumian.errors import MumianError

from mumian_orchestrator.adapters.fernet.secret_box import FernetBox, KeyFileError
from mumian_orchestrator.main.config import ConfigError, host_and_port, read_mapping
from mumian_orchestrator.main.free_ports import free_port
from mumian_orchestrator.main.local_processes import LocalProcesses, StartError
from mumian_orchestrator.main.security import SECRETS_KEY

SITE_ID, ZONE_ID = "local", "here"
LISTEN_DEFAULT = "127.0.0.1:7070"
_READY_WITHIN_S = 180.0  # a busy machine takes a minute to start Ray
_SITE_TEMPLATE = """\
# This machine as a site; written once by `mumian up`, yours to edit.
site:
  id: {site_id}
  operator_id: self
  tier: edge
  jurisdiction: CN
  pue: {{average: 1.0, marginal: 1.0}}      # no facility around it that anybody meters
  prices: {{cpu_core_hour_cny: 0.2, memory_gib_hour_cny: 0.02, energy_kwh_cny: 0.7}}
  carbon_g_per_kwh: 450
node: {{others: ignore}}      # the whole machine is offered, whatever else runs on it
"""

StateDir = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="MUMIAN_STATE_DIR",
    default=lambda: Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "mumian",
    show_default="~/.local/state/mumian",
    help="Where the platform keeps its state and its logs.",
)


def find_etcd() -> str:
    """The etcd server of this machine.

    Raises:
        StartError: there is none.
    """
    cache = Path(os.environ.get("MUMIAN_CACHE_DIR", Path.home() / ".cache/mumian"))
    unpacked = cache / "etcd/usr/bin/etcd"
    found = shutil.which("etcd") or (str(unpacked) if unpacked.exists() else None)
    if found is None:
        raise StartError("etcd is not installed; `apt-get install etcd-server`, or `make etcd` in a checkout")
    return found


def start_etcd(processes: LocalProcesses, state_dir: Path) -> str:
    """Start a private etcd on the loopback; its endpoint as host:port.

    Raises:
        StartError: it is not installed, or did not come up.
    """
    client, peer = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    argv = [
        *(find_etcd(), "--data-dir", str(state_dir / "etcd"), "--name", "mumian"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", f"mumian={peer}"),
    ]
    processes.start("etcd", argv, lambda log: "ready to serve client requests" in log, _READY_WITHIN_S)
    return client.removeprefix("http://")


def start_script(processes: LocalProcesses, name: str, script: str, *arguments: str) -> None:
    """Start one of Mumian's own commands and wait for its `ready:` line.

    Raises:
        StartError: it is not installed, or did not become ready.
    """
    path = Path(sys.executable).parent / script
    found = str(path) if path.exists() else shutil.which(script)
    if found is None:
        raise StartError(
            f"{script} is not installed; `pip install {script.replace('coordinator', 'orchestrator')}`"
        )
    processes.start(name, [found, *arguments], has_ready_line, _READY_WITHIN_S)


def has_ready_line(log: str) -> bool:
    """Whether a process of ours has said that it is ready."""
    return any(line.startswith("ready:") for line in log.splitlines())


@click.command()
@click.option("--listen", default=LISTEN_DEFAULT, show_default=True, help="Where the coordinator listens.")
@click.option(
    "--coordinators",
    type=click.IntRange(1, 9),
    default=1,
    show_default=True,
    help="How many; each listens on the port after the one before. One leads, the others are ready to.",
)
@click.option(
    "--etcd", metavar="HOST:PORT,...", help="Members of an etcd to use instead of a private one, with commas."
)
@click.option("--etcd-ca", metavar="FILE", help="The authority of that etcd, for TLS; then also:")
@click.option("--etcd-cert", metavar="FILE", help="What the coordinator proves itself by.")
@click.option("--etcd-key", metavar="FILE", help="The key of that certificate.")
@StateDir
@output_option
@pass_session
def up(session: Session, /, listen: str, coordinators: int, state_dir: Path, **etcd: str | None) -> None:
    """Start the platform on this machine: etcd, a coordinator, and this machine as a site."""
    state_dir = state_dir.absolute()
    with _failures_told(state_dir):
        listens = _consecutive(listen, coordinators)
        own_etcd = _etcd_given(**etcd)
        processes = LocalProcesses(state_dir)
        with processes.alone():
            started = not processes.running()
            if started:
                _start_all(processes, state_dir, listens, own_etcd)
            elif processes.ended():
                gone = " and ".join(
                    f"{name} (its log is {processes.log(name)})" for name in processes.ended()
                )
                raise StartError(f"it is up, but without {gone}; `mumian down`, then `mumian up` again")
            running = processes.running()
    if session.json:
        found = {"coordinator": ",".join(listens), "site": SITE_ID, "zone": ZONE_ID} if started else {}
        print_json_line({**found, "started": started, "processes": running, "state_dir": str(state_dir)})
    elif not started:
        click.echo(f"already up ({', '.join(running)}); `mumian down` stops it")
    else:
        where = ",".join(listens)
        export = "" if where == LISTEN_DEFAULT else f"\n  export MUMIAN_COORDINATOR={where}"
        click.echo(
            f"up: coordinator on {where}, site {SITE_ID}, zone {ZONE_ID}\n"
            f"  state and logs in {state_dir}{export}\n"
            "  mumian sites            what there is\n"
            "  mumian submit job.yaml  run something\n"
            "  mumian down             stop what this started"
        )


@click.command()
@StateDir
@output_option
@pass_session
def down(session: Session, state_dir: Path) -> None:
    """Stop exactly what `mumian up` started. Jobs are kept and go on after the next `mumian up`."""
    state_dir = state_dir.absolute()
    stopped: list[str] = []
    with _failures_told(state_dir):
        processes = LocalProcesses(state_dir)
        if state_dir.exists():
            with processes.alone():
                stopped = processes.stop_all()
    if session.json:
        print_json_line({"stopped": stopped, "state_dir": str(state_dir)})
    else:
        click.echo(f"stopped {', '.join(stopped)}" if stopped else f"nothing to stop in {state_dir}")


@contextlib.contextmanager
def _failures_told(state_dir: Path) -> Iterator[None]:
    """What goes wrong on this machine, as the command line's one kind of error."""
    try:
        yield
    except (ConfigError, KeyFileError) as error:
        raise MumianError("INVALID_FIELD", str(error)) from None
    except StartError as error:
        raise MumianError("START_FAILED", str(error)) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise MumianError("INVALID_FIELD", f"state_dir ({state_dir}) cannot be used: {reason}") from None


def _consecutive(listen: str, count: int) -> list[str]:
    """So many addresses of one host, from this one on.

    Raises:
        ConfigError: it is none, or there are not so many ports.
    """
    host, port = host_and_port("--listen", listen)
    if port + count > 65536:
        raise ConfigError(f"--listen ({listen}) leaves no room for {count} ports; take a lower one")
    return [f"{host}:{port + number}" for number in range(count)]


def _start_all(
    processes: LocalProcesses, state_dir: Path, listens: Sequence[str], own_etcd: Mapping[str, Any]
) -> None:
    """Start everything, or nothing: whatever breaks it off, what was started is stopped again."""
    site = _site_facts(state_dir / "site.yaml")
    try:
        _start_each(processes, state_dir, listens, own_etcd, site)
    except BaseException as reason:
        if isinstance(reason, KeyboardInterrupt):
            click.echo("interrupted; stopping what was started", err=True)
        processes.stop_all()
        raise


def _start_each(
    processes: LocalProcesses,
    state_dir: Path,
    listens: Sequence[str],
    own_etcd: Mapping[str, Any],
    site: Mapping[str, Any],
) -> None:
    reflector = f"127.0.0.1:{free_port()}"
    etcd = own_etcd or {"etcd": start_etcd(processes, state_dir)}
    zones = [{"id": ZONE_ID, "title": "this machine", "reflector": reflector}]
    secrets_key = state_dir / SECRETS_KEY
    FernetBox.made_in(secrets_key)
    for number, listen in enumerate(listens):
        name = f"coordinator-{number + 1}" if number else "coordinator"
        config = state_dir / f"{name}.yaml"
        kept = {
            "bundles_dir": str(state_dir / "bundles"),
            "records_dir": str(state_dir / "records"),
            "secrets_key": str(secrets_key),
            "decisions_dir": str(state_dir / f"{name}-decisions"),
        }
        config.write_text(yaml.safe_dump({"listen": listen, **etcd, **kept, "zones": zones}))
        start_script(processes, name, "mumian-coordinator", "--config", str(config))
    start_script(processes, "reflector", "mumian-agent", "reflector", "--listen", reflector)
    agent_yaml = state_dir / "agent.yaml"
    own = {
        "coordinator": list(listens),
        "state_dir": str(state_dir / "agent"),
        "reflector": {"listen": f"127.0.0.1:{free_port()}"},
    }
    agent_yaml.write_text(yaml.safe_dump({**own, **site}))
    start_script(processes, "agent", "mumian-agent", "run", "--config", str(agent_yaml))


def _etcd_given(**options: str | None) -> Mapping[str, Any]:
    """The coordinator's fields of an etcd that is there already; none where a private one is wanted.

    Raises:
        ConfigError: they do not go together.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value}
    if given and "etcd" not in given:
        raise ConfigError(
            f"--{' --'.join(given).replace('_', '-')} says nothing without --etcd HOST:PORT,..."
        )
    for name in given.keys() - {"etcd"}:
        given[name] = str(Path(given[name]).absolute())
    if "etcd" in given:
        given["etcd"] = given["etcd"].split(",")
        for endpoint in given["etcd"]:
            host_and_port("--etcd", endpoint)
    return given


def _site_facts(site_yaml: Path) -> Mapping[str, Any]:
    """The part of the agent's configuration that is the user's; the rest are addresses, and ours.

    Raises:
        ConfigError: it cannot be read.
    """
    if not site_yaml.exists():
        site_yaml.write_text(_SITE_TEMPLATE.format(site_id=SITE_ID))
    facts = read_mapping(site_yaml)
    if not facts:
        raise ConfigError(f"config {site_yaml} says nothing; remove it and `mumian up` writes a new one")
    return facts
