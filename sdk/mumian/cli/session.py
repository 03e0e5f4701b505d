"""What the verbs of one run share: the options, the connection and the two output streams."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from mumian.client import Client

Function = TypeVar("Function", bound=Callable[..., Any])

WIDTH_MAX = 100


class Session:
    """One run of the command line."""

    def __init__(self) -> None:
        self.coordinator: str | None = None
        self.tenant: str | None = None
        self.token_file: str | None = None
        self.ca: str | None = None
        self.output = "table"

    @property
    def json(self) -> bool:
        """Whether the output is for programs."""
        return self.output == "json"

    @cached_property
    def client(self) -> Client:
        """The connection, opened at first use."""
        from mumian.client import Client

        return Client(
            self.coordinator,
            tenant=self.tenant,
            token_file=self.token_file,
            ca_file=self.ca,
            connect_timeout_s=1.0,
        )

    @cached_property
    def console(self) -> Console:
        """Standard output."""
        return _console(stderr=False)

    @cached_property
    def notes(self) -> Console:
        """Standard error: what is for people only."""
        return _console(stderr=True)

    def close(self) -> None:
        """Close the connection, if one was opened."""
        if "client" in self.__dict__:
            self.client.close()


pass_session = click.make_pass_decorator(Session, ensure=True)


def output_option(function: Function) -> Function:
    """What the output looks like; by itself for verbs that ask no coordinator."""
    return click.option(
        *("-o", "--output"),
        type=click.Choice(["table", "json"]),
        help="json: protobuf JSON with the API's names.",
        **_kept("output"),
    )(function)


def shared_options(function: Function) -> Function:
    """The options of every verb; they may also stand before the verb."""
    for option in (
        output_option,
        click.option("--tenant", metavar="NAME", help="[env MUMIAN_TENANT, then default]", **_kept("tenant")),
        click.option(
            "--token-file",
            metavar="FILE",
            help="Who you are; readable by you alone. [env MUMIAN_TOKEN, MUMIAN_TOKEN_FILE]",
            **_kept("token_file"),
        ),
        click.option(
            "--ca",
            metavar="FILE",
            help="Who has issued the coordinator's certificate. [env MUMIAN_CA, then the system's]",
            **_kept("ca"),
        ),
        click.option(
            "--coordinator",
            metavar="HOST:PORT,...",
            help="One, or several with commas. [env MUMIAN_COORDINATOR, then 127.0.0.1:7070]",
            **_kept("coordinator"),
        ),
    ):
        function = option(function)
    return function


def _kept(name: str) -> dict[str, Any]:
    def keep(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            setattr(context.ensure_object(Session), name, value)

    return {"expose_value": False, "callback": keep}


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class PipedConsole(Console):
        """Leaves a broken pipe to whoever runs the command, where rich would end the process with 1."""

        def on_broken_pipe(self) -> None:
            """Only called while the BrokenPipeError is being handled."""
            raise

    stream = sys.stderr if stderr else sys.stdout
    console = PipedConsole(file=stream, markup=False, emoji=False, highlight=False)
    # A pipe has no width; a wide terminal makes tables that the eye cannot follow.
    console.width = min(console.width, WIDTH_MAX) if console.is_terminal else WIDTH_MAX
    return console
