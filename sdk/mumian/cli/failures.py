"""Failures as one clear message on standard error, and their exit codes."""

from __future__ import annotations

import json
import os
import sys
import traceback

import click

from mumian.errors import MumianError

EXIT_FAILED = 1  # the job failed, has no place, no money or no outputs, or its update has stopped
EXIT_BAD_INPUT = 2
EXIT_UNREACHABLE = 3
EXIT_SERVER = 4
EXIT_INTERRUPTED = 130

DEBUG_VARIABLE = "MUMIAN_DEBUG"
_BAD_INPUT = frozenset(
    {
        "INVALID_FIELD",
        "UNKNOWN_ZONE",
        "REQUEST_ID_REUSED",
        "JOB_NOT_FOUND",
        "ALLOCATION_NOT_FOUND",
        "SITE_NOT_FOUND",
        "INVALID_PAGE_TOKEN",
        "MESSAGE_TOO_LARGE",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "BUNDLE_NOT_FOUND",
        "NOT_CHARGED",
        "SITE_REVOKED",
        "JOIN_REFUSED",
        "TOKEN_NOT_FOUND",
        "SECRET_NOT_FOUND",
        "SECRET_IN_USE",
    }
)


def exit_code(error: MumianError) -> int:
    """The exit code of an error."""
    if error.reason == "CLIENT_UNREACHABLE":
        return EXIT_UNREACHABLE
    if error.reason in ("NO_PLACE", "NO_MONEY", "OUTPUT_NOT_FOUND", "UPDATE_STOPPED"):
        return EXIT_FAILED
    return EXIT_BAD_INPUT if error.reason in _BAD_INPUT else EXIT_SERVER


def report(error: MumianError, *, json_output: bool) -> int:
    """Print an error; its exit code."""
    if json_output:
        violations = [{"field": v.field, "description": v.description} for v in error.field_violations]
        body = {"reason": error.reason, "message": error.message, "field_violations": violations}
        click.echo(json.dumps({"error": body}, ensure_ascii=False), err=True)
    elif "\n" in error.message:
        click.echo(f"mumian: {error.reason}\n{error.message}", err=True)
    else:
        click.echo(f"mumian: {error.reason}: {error.message}", err=True)
    return exit_code(error)


def misuse(error: click.ClickException) -> MumianError:
    """What is wrong with the command line."""
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    hint = f"; see `{context.command_path} --help`" if context and "install" not in message else ""
    return MumianError("INVALID_FIELD", f"{message}{hint}")


def unwritable(error: OSError) -> MumianError:
    """That the output goes nowhere; what was asked for may have been done."""
    reason = (error.strerror or str(error)).lower()
    return MumianError("INVALID_FIELD", f"standard output cannot be written: {reason}; send it elsewhere")


def defect(error: Exception) -> MumianError:
    """That Mumian is at fault, and how to see more."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error, file=sys.stderr)
    return MumianError(
        "INTERNAL",
        f"a defect of Mumian ({type(error).__name__}: {error}); "
        f"run it again with {DEBUG_VARIABLE}=1 and report what it prints",
    )
