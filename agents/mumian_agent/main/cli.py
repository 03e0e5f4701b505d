"""`mumian-agent run`, `node`, `reflector`, and what is asked at the site."""

from __future__ import annotations

import asyncio
import logging
import shlex
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click
from mumian.api.v1.ops_service_pb2 import DiagnoseResponse, Finding
from mumian.cli.json_output import print_json
from mumian.findings import has_failed, told

from mumian_agent.adapters.grpc import echo
from mumian_agent.adapters.grpc.coordinator_stream import RefusedForGoodError
from mumian_agent.agent.ports import SiteRuntimeError
from mumian_agent.domain import config as site_config
from mumian_agent.domain.config import NOWHERE, RACK_VARIABLE, SWITCH_VARIABLE, AgentConfig
from mumian_agent.domain.fields import ConfigError, Fields, checked_address
from mumian_agent.domain.site_token import parse_site_token
from mumian_agent.main import local_cli
from mumian_agent.main.config_file import load, read_yaml
from mumian_agent.runtime.identity import Identity, StateInUseError
from mumian_agent.runtime.kubernetes_node import (
    RACK_LABELS,
    SWITCH_LABELS,
    KubernetesError,
    first_of,
    labels_of,
)
from mumian_agent.runtime.reflector import Reflector, ReflectorError

log = logging.getLogger(__name__)

_BAD_INPUT, _FAILED, _REFUSED = 2, 1, 3


@click.group()
@click.version_option(package_name="mumian-agent")
def main() -> None:
    """The agent of a Mumian site."""


@main.command()
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), help="The site, in YAML.")
@click.option("--verbose", is_flag=True, help="Also log what goes as it should.")
def run(path: Path, verbose: bool) -> None:
    """Run the agent of a site until SIGTERM or Ctrl-C."""
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        config = load(path)
        config.state_dir.mkdir(parents=True, exist_ok=True)
        identity = Identity(config.state_dir)
        reflector = Reflector(config.reflector_listen)
        if config.reflector_grpc_listen is not None:
            _answer_calls(config.reflector_grpc_listen, config.reflector_grpc_asked)
    except (ConfigError, StateInUseError, ReflectorError) as error:
        _leave(str(error), _BAD_INPUT)
    except OSError as error:
        _leave(f"state_dir ({config.state_dir}) cannot be used: {error.strerror}", _BAD_INPUT)
    reflector.start()
    try:
        asyncio.run(_run_until_signal(config, identity))
    except ConfigError as error:
        _leave(str(error), _BAD_INPUT)
    except RefusedForGoodError as error:
        _leave(f"refused by the coordinator at {', '.join(config.coordinators)}: {error}", _REFUSED)
    except SiteRuntimeError as error:
        _leave(str(error), _FAILED)


@main.command()
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), help="The site, in YAML.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def doctor(path: Path, output: str) -> None:
    """Look for what keeps this site from working. Exits with 1 if something fails."""
    from mumian_agent.main.doctor.command import findings

    # What is found is printed; what fails on the way there is no news.
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    try:
        config = load(path)
    except ConfigError as error:
        _leave(str(error), _BAD_INPUT)

    async def look() -> list[Finding]:
        return [finding async for finding in findings(config)]

    found = asyncio.run(look())
    if output == "json":
        print_json(DiagnoseResponse(findings=found))
    else:
        for word, line in told(found):
            click.echo(f"{word:5} {line}")
    raise SystemExit(_FAILED if has_failed(found) else 0)


main.add_command(local_cli.status)
main.add_command(local_cli.logs)
main.add_command(local_cli.cancel)


@main.command()
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), help="The site, in YAML.")
@click.option("--coordinator", required=True, metavar="HOST:PORT", help="The door that people use.")
@click.option(
    "--token", metavar="TEXT", help="Of `mumian-coordinator site-token create`; others see it in `ps`."
)
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="The same in a file; - is standard input."
)
@click.option("--new-key", is_flag=True, help="Make the site another key, even where it has one.")
def join(path: Path, coordinator: str, token: str | None, token_file: Path | None, new_key: bool) -> None:
    """Join as a site by a one-use token: the key is made here, and stays here."""
    from mumian_agent.adapters.grpc.enrolment import JoinError
    from mumian_agent.main.joining import join as join_site

    try:
        if (token is None) == (token_file is None):
            raise ConfigError("give the token by --token-file FILE (- is standard input), or by --token TEXT")
        address = checked_address("--coordinator", coordinator)
        parsed = parse_site_token(token if token is not None else _text_of(token_file))
        click.echo(join_site(load(path), address, parsed, new_key=new_key))
    except ConfigError as error:
        _leave(str(error), _BAD_INPUT)
    except JoinError as error:
        _leave(str(error), _REFUSED)
    except OSError as error:
        _leave(f"{error.filename} cannot be used: {error.strerror}", _BAD_INPUT)


def _text_of(file: Path | None) -> str:
    if file is None or str(file) == "-":
        return sys.stdin.read()
    return file.read_text(encoding="ascii", errors="replace")


@main.command()
@click.option("--head", required=True, help="host:port of the site's Ray: `ray.listen` of its agent.")
@click.option("--name", required=True, help="Of this machine at the site, such as n2.")
@click.option("--address", required=True, help="This machine's own, which the others of the site reach.")
@click.option("--token-file", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--state-dir", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The section `node` of this machine, in YAML.",
)
def node(
    head: str, name: str, address: str, token_file: Path, state_dir: Path, config_file: Path | None
) -> None:
    """Make this machine one more node of a site, until SIGTERM or Ctrl-C.

    TOKEN-FILE is a copy of `ray.token` in the state folder of the site's agent.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        checked_address("--head", head)
        if not site_config.is_name(name):
            raise ConfigError(f"--name ({name!r}) is no valid name; use a-z, 0-9 and -, such as n2")
        config = site_config.node_of(Fields(read_yaml(config_file) if config_file else None, "node"))
        state_dir.mkdir(parents=True, exist_ok=True)
    except ConfigError as error:
        _leave(str(error), _BAD_INPUT)
    except OSError as error:
        _leave(f"--state-dir ({state_dir}) cannot be used: {error.strerror}", _BAD_INPUT)
    from mumian_agent.main.node import join_site

    status = join_site(head, name, address, token_file.absolute(), state_dir.absolute(), config, config_file)
    sys.exit(_FAILED if status else 0)


@main.command("kubernetes-place")
@click.option("--api", required=True, metavar="URL", help="Of Kubernetes' API.")
@click.option("--node", "node_name", required=True, help="The node of this pod.")
@click.option("--switch-label", "switch_labels", multiple=True, default=SWITCH_LABELS, show_default=True)
@click.option("--rack-label", "rack_labels", multiple=True, default=RACK_LABELS, show_default=True)
def kubernetes_place(
    api: str, node_name: str, switch_labels: tuple[str, ...], rack_labels: tuple[str, ...]
) -> None:
    """Print, as lines for a shell, where a Kubernetes node is in the site by its labels."""
    try:
        labels = labels_of(api, node_name)
    except KubernetesError as error:
        _leave(str(error), _FAILED)
    for variable, names in ((SWITCH_VARIABLE, switch_labels), (RACK_VARIABLE, rack_labels)):
        if name := first_of(labels, names):
            click.echo(f"export {variable}={shlex.quote(name)}")


@main.command()
@click.option("--listen", required=True, help="host:port of the UDP socket.")
@click.option(
    "--grpc-listen",
    metavar="HOST:PORT",
    help="By TCP, for sites that UDP does not reach. Default: the same; none: nowhere.",
)
def reflector(listen: str, grpc_listen: str | None) -> None:
    """Answer probes: a zone's reflector, by which its users' round trips are measured."""
    try:
        answering = Reflector(checked_address("--listen", listen))
        if grpc_listen != NOWHERE:
            _answer_calls(checked_address("--grpc-listen", grpc_listen or listen), grpc_listen is not None)
    except (ConfigError, ReflectorError) as error:
        _leave(str(error), _BAD_INPUT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    click.echo(f"ready: reflector on {listen}")
    try:
        answering.serve()
    except KeyboardInterrupt:
        sys.exit(0)


def _answer_calls(listen: str, is_asked: bool) -> None:
    try:
        echo.serve(listen)
    except ReflectorError as error:
        if is_asked:
            raise
        log.warning("who is not reached by UDP cannot measure how far this is: %s", error)


async def _run_until_signal(config: AgentConfig, identity: Identity) -> None:
    # Imported here: Ray takes half a second to import, which bad configurations and reflectors need not wait
    # for, and its settings must be in the environment before.
    from mumian_agent.adapters.ray.settings import own_token, prepare_environment

    prepare_environment(own_token(config.state_dir))
    from mumian_agent.main.site import run_site

    await run_site(config, identity)


def _leave(message: str, status: int) -> NoReturn:
    click.echo(f"mumian-agent: {message}", err=True)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
