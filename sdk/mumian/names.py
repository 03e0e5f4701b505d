"""Names of jobs and task groups."""

from __future__ import annotations

import re

NAME_LENGTH_MAX = 40
CONTRACT_LENGTH_MAX = 64
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_ENTRY_POINT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def name(text: str) -> str:
    """The text, if it can be the name of a job or a group; ValueError with the advice otherwise."""
    if len(text) > NAME_LENGTH_MAX or not _NAME.fullmatch(text):
        raise ValueError(
            f"must be 1 to {NAME_LENGTH_MAX} of a-z, 0-9 and -, not - at an end; "
            f"write {name_from(text) or 'my-job'}"
        )
    return text


def name_from(text: str) -> str:
    """The valid name nearest to any text ("My Job.v2" becomes "my-job-v2"); empty when nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:NAME_LENGTH_MAX].rstrip("-")


def contract(text: str) -> str:
    """The text, if it can be the number of a contract; ValueError otherwise."""
    if not 0 < len(text) <= CONTRACT_LENGTH_MAX or not text.isprintable() or text != text.strip():
        raise ValueError(
            f"must be one line of 1 to {CONTRACT_LENGTH_MAX} characters, without space around it"
        )
    return text


def entry_point(text: str) -> str:
    """The text, if it has the form package.module:function; ValueError otherwise."""
    if not _ENTRY_POINT.fullmatch(text):
        raise ValueError("must be package.module:function")
    return text
