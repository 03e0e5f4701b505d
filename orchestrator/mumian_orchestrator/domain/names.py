"""What things may be called."""

from __future__ import annotations

import re

NAME_LENGTH_MAX = 40
NAME_ADVICE = f"use 1 to {NAME_LENGTH_MAX} of a-z, 0-9 and -, not - at an end"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def is_name(text: str) -> bool:
    """Whether it can be the name of a job, a task group, a port or a site."""
    return len(text) <= NAME_LENGTH_MAX and _NAME.fullmatch(text) is not None
