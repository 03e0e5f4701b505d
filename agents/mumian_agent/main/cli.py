"""`mumian-agent run`, `reflector`, and what is asked at the site."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click
import yaml

from mumian_agent.adapters.grpc.coordinator_stream import RefusedForGoodError
from mumian_agent.agent.ports import SiteRuntimeError
from mumian_agent.domain import config as site_config
from mumian_agent.domain.config import AgentConfig
from mumian_agent.domain.fields import ConfigError, checked_address
from mumian_agent.domain.site_token import parse_site_token
from mumian_agent.main import local_cli
from mumian_agent.runtime.identity import Identity, StateInUseError
from mumian_agent.runtime.reflector import Reflector, ReflectorError

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
@click.option("--listen", required=True, help="host:port of the UDP socket.")
def reflector(listen: str) -> None:
    """Answer probes: a zone's reflector, by which its users' round trips are measured."""
    try:
        answering = Reflector(checked_address("--listen", listen))
    except (ConfigError, ReflectorError) as error:
        _leave(str(error), _BAD_INPUT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    click.echo(f"ready: reflector on {listen}")
    try:
        answering.serve()
    except KeyboardInterrupt:
        sys.exit(0)


def load(path: Path) -> AgentConfig:
    """Read a configuration file.

    Raises:
        ConfigError: it cannot be read, or a field is missing, unknown or wrong.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is no YAML: {' '.join(str(error).split())}") from error
    try:
        return site_config.parse(raw)
    except ConfigError as error:
        raise ConfigError(f"config {path}: {error}") from None


async def _run_until_signal(config: AgentConfig, identity: Identity) -> None:
    # Imported here: Ray takes half a second to import, which bad configurations and reflectors need not wait
    # for, and its settings must be in the environment before.
    from mumian_agent.adapters.ray.settings import prepare_environment

    prepare_environment(config.state_dir)
    from mumian_agent.main.site import run_site

    await run_site(config, identity)


def _leave(message: str, status: int) -> NoReturn:
    click.echo(f"mumian-agent: {message}", err=True)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
