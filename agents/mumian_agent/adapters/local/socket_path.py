"""Where an agent can be asked by who is at its site: a socket in its state folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_NAME = "agent.sock"


@contextlib.contextmanager
def reachable(state_dir: Path) -> Iterator[str]:
    """A path to the socket that is short enough to be bound or connected to, however long the folder's is.

    The kernel takes 107 bytes (unix(7)); a folder that is open has a short name below /proc.
    """
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{_NAME}"
    finally:
        os.close(folder)
