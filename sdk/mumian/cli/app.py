"""The verbs, loaded when they are called, and the exit code of each failure."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mumian.cli.failures import EXIT_INTERRUPTED, defect, misuse, report, unwritable
from mumian.cli.session import Session, shared_options
from mumian.errors import MumianError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "mumian.cli"
_VERBS = {
    "submit": "mumian.cli.submit:submit",
    "plan": "mumian.cli.submit:plan",
    "jobs": "mumian.cli.jobs:jobs",
    "status": "mumian.cli.jobs:status",
    "events": "mumian.cli.events:events",
    "receipt": "mumian.cli.receipt:receipt",
    "statement": "mumian.cli.statement:statement",
    "budget": "mumian.cli.budget:budget",
    "share": "mumian.cli.share:share",
    "logs": "mumian.cli.logs:logs",
    "fetch": "mumian.cli.fetch:fetch",
    "endpoints": "mumian.cli.endpoints:endpoints",
    "update": "mumian.cli.update:update",
    "cancel": "mumian.cli.jobs:cancel",
    "explain": "mumian.cli.jobs:explain",
    "sites": "mumian.cli.fleet:sites",
    "brake": "mumian.cli.fleet:brake",
    "nodes": "mumian.cli.fleet:nodes",
    "zones": "mumian.cli.fleet:zones",
    "links": "mumian.cli.fleet:links",
    "top": "mumian.cli.top:top",
    "optimize": "mumian.cli.planning:optimize",
    "what-if": "mumian.cli.planning:what_if",
    "documents": "mumian.cli.documents:documents",
    "voucher": "mumian.cli.city:voucher",
    "city": "mumian.cli.city:city",
    "refund": "mumian.cli.statement:refund",
    "doctor": "mumian.cli.doctor:doctor",
    "secret": "mumian.cli.secret:secret",
    "whoami": "mumian.cli.whoami:whoami",
    "token": "mumian.cli.access:token",
    "site-token": "mumian.cli.access:site_token",
    "site": "mumian.cli.access:site",
    "audit": "mumian.cli.access:audit",
}
_OPS_VERBS = {"up", "down"}


class Verbs(click.Group):
    """Our verbs, then those that other installed packages contribute."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, in the order in which a newcomer needs them."""
        return [*_VERBS, *(name for name in _contributed() if name not in _VERBS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The verb of a name; a missing ops verb explains itself."""
        if cmd_name in _VERBS:
            module, attribute = _VERBS[cmd_name].split(":")
            verb = getattr(importlib.import_module(module), attribute)
            assert isinstance(verb, click.Command)
            return verb
        contributed = _contributed().get(cmd_name)
        if contributed is not None:
            return _load(contributed)
        if cmd_name in _OPS_VERBS:
            raise click.UsageError(
                f"`mumian {cmd_name}` is not part of the tenant package; "
                "install mumian-orchestrator and mumian-agent"
            )
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest verb named for a mistyped one."""
        name = args[0] if args else ""
        # Our own first: to look for contributed ones takes as long as to load the rest.
        if name not in _VERBS and not name.startswith("-") and name not in _contributed().keys() | _OPS_VERBS:
            import difflib

            known = self.list_commands(ctx)
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
            ctx.fail(f"verb ({name}) is unknown; {hint}")
        return super().resolve_command(ctx, args)


def _contributed() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _load(point: EntryPoint) -> click.Command:
    try:
        verb = point.load()
    except Exception as error:
        raise click.UsageError(f"`mumian {point.name}` ({point.value}) does not load: {error}") from None
    if not isinstance(verb, click.Command):
        raise click.UsageError(f"`mumian {point.name}` ({point.value}) is no click command")
    return verb


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mumian", prog_name="mumian")
@shared_options
def cli() -> None:
    """Submit jobs to a city's compute as if it were one machine.

    Each job goes where its latency promise holds and its money goes furthest.
    """


def run(argv: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    session = Session()
    stdout = sys.stdout
    try:
        code = cli.main(args=list(argv), prog_name="mumian", standalone_mode=False, obj=session)
        if stdout is not None:  # it is None where the caller has closed it
            stdout.flush()
        return code if isinstance(code, int) else 0
    except MumianError as error:
        return report(error, json_output=session.json)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        return report(misuse(error), json_output=session.json)
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except SystemExit:
        # click's answer to a reader that has enough (head, less) is 1, which here means that a job failed;
        # it is told by the stdout that click put in the place of the broken one.
        if sys.stdout is not stdout:
            return 0
        raise
    except OSError as error:
        if error.filename is not None:
            return report(defect(error), json_output=session.json)
        return report(unwritable(error), json_output=session.json)
    except Exception as error:
        return report(defect(error), json_output=session.json)
    finally:
        session.close()
