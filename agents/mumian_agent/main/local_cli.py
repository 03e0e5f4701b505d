"""`mumian-agent status`, `logs` and `cancel`: at the site, whether the coordinator is there or not."""

from __future__ import annotations

import base64
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from mumian.api.v1.job_service_pb2 import LOG_STREAM_STDERR

from mumian_agent.adapters.local.client import NoAgentError, RefusedError, ask
from mumian_agent.domain.fields import ConfigError
from mumian_agent.main.config_file import load

Function = TypeVar("Function", bound=Callable[..., Any])
_BAD_INPUT, _NO_AGENT, _REFUSED = 2, 3, 1


def _state_dir(function: Function) -> Function:
    """Either of two options, as the folder in which the agent is asked."""

    @click.option("--config", type=click.Path(path_type=Path), help="The site, in YAML: it names the folder.")
    @click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        envvar="MUMIAN_AGENT_STATE_DIR",
        help="The agent's state folder. [env MUMIAN_AGENT_STATE_DIR]",
    )
    @functools.wraps(function)
    def with_folder(config: Path | None, state_dir: Path | None, **others: object) -> object:
        try:
            if config is not None:
                state_dir = load(config).state_dir
        except ConfigError as error:
            _leave(str(error), _BAD_INPUT)
        if state_dir is None:
            _leave("say which agent: --config FILE, or --state-dir FOLDER", _BAD_INPUT)
        return function(state_dir, **others)

    return with_folder  # type: ignore[return-value]


@click.command()
@_state_dir
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def status(state_dir: Path, output: str) -> None:
    """Show what runs at this site, and what has ended last."""
    [told] = _asked(state_dir, verb="status")
    if output == "json":
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    silent_s = told["silent_s"]
    heard = "has not been heard" if silent_s is None else f"was heard {silent_s} s ago"
    click.echo(f"site {told['site']}; the coordinator {heard}; {told['untold']} results are still to be told")
    rows = [("allocation", "tenant", "state", "restarts", "pid", "endpoints", "message")]
    for task in told["tasks"]:
        endpoints = " ".join(f"{port}={address}" for port, address in task["endpoints"].items())
        pid = "-" if task["pid"] is None else str(task["pid"])
        facts = (task["tenant"], task["state"], str(task["restarts"]), pid, endpoints or "-", task["message"])
        rows.append((task["allocation"], *facts))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@click.command()
@_state_dir
@click.argument("allocation")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task ends.")
@click.option("--tail", "tail_bytes", type=click.IntRange(0), default=0, help="Only the last so many bytes.")
def logs(state_dir: Path, allocation: str, follow: bool, tail_bytes: int) -> None:
    """Print what a task of this site has written."""
    for line in _asked(state_dir, verb="logs", allocation=allocation, follow=follow, tail_bytes=tail_bytes):
        stream = sys.stderr if line["stream"] == LOG_STREAM_STDERR else sys.stdout
        stream.buffer.write(base64.b64decode(line["data"]))
        stream.flush()


@click.command()
@_state_dir
@click.argument("allocation")
def cancel(state_dir: Path, allocation: str) -> None:
    """End a task of this site, with all its processes. To its job it has failed."""
    for _ in _asked(state_dir, verb="cancel", allocation=allocation):
        click.echo(f"{allocation} is being ended; `mumian-agent status` shows when it has")


def _asked(state_dir: Path, **request: object) -> Iterator[dict[str, Any]]:
    try:
        yield from ask(state_dir, **request)
    except NoAgentError as error:
        _leave(str(error), _NO_AGENT)
    except RefusedError as error:
        _leave(str(error), _REFUSED)


def _leave(message: str, status: int) -> NoReturn:
    click.echo(f"mumian-agent: {message}", err=True)
    raise SystemExit(status)
