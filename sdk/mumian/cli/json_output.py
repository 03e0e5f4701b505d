"""Messages as protobuf JSON with the API's own (snake case) names."""

from __future__ import annotations

from typing import Any

import click
from google.protobuf.message import Message


def as_dict(message: Message) -> dict[str, Any]:
    """A message with all its fields, so that a script finds each one."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def print_json(message: Message) -> None:
    """One indented document."""
    import json

    click.echo(json.dumps(as_dict(message), indent=2, ensure_ascii=False))


def print_json_line(value: Message | dict[str, Any]) -> None:
    """One line of a stream."""
    import json

    click.echo(json.dumps(as_dict(value) if isinstance(value, Message) else value, ensure_ascii=False))
