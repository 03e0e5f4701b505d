"""How a file comes to its place: whole and on the disk, or not at all, whenever the machine loses power."""

from __future__ import annotations

import os
from pathlib import Path


def put_in_place(scratch: Path, path: Path) -> None:
    """Move a file that is written to its place in the same folder; it is there to stay when this returns.

    Raises:
        OSError: it is not.
    """
    _sync(scratch)
    scratch.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """A file's content, or a folder's names."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
