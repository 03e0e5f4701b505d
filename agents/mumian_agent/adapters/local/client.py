"""Asks the agent of a state folder."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mumian_agent.adapters.local.socket_path import reachable


class NoAgentError(Exception):
    """Nobody answers for the state folder, and why."""


class RefusedError(Exception):
    """The agent does not do what was asked, and why."""


def ask(state_dir: Path, **request: object) -> Iterator[dict[str, Any]]:
    """The lines of the answer, as they come.

    Raises:
        NoAgentError: no agent runs on it.
        RefusedError: it cannot do that.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            with reachable(state_dir) as path:
                connection.connect(path)
        except OSError as error:
            raise NoAgentError(
                f"no agent answers for state_dir ({state_dir}): {(error.strerror or str(error)).lower()}; "
                "is it running, as this user?"
            ) from None
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            for line in lines:
                answer = json.loads(line)
                if "error" in answer:
                    raise RefusedError(answer["error"])
                yield answer
