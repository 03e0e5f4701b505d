"""The audit log's form: lines of JSON, each with the hash of the one before it.

A line holds printable ASCII only, so no value that somebody chose can end it, or move a terminal's cursor.
Anybody can check the chain: the SHA-256 of a line is what the next one has as "previous".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mumian_orchestrator.domain.chained_log import ChainBrokenError, ChainedLog, ChainEnd

_VALUE_LENGTH_MAX = 200
_START_SHA256 = "0" * 64


class AuditBrokenError(ChainBrokenError):
    """The log is not what was written: where, and how that shows."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry, by number (from 1; 0: there is none) and hash."""

    number: int = 0
    sha256: str = _START_SHA256


def entry_after(head: Head, facts: Mapping[str, Any]) -> tuple[bytes, Head]:
    """The next line, and the head that it makes."""
    entry = {**facts, "number": head.number + 1, "previous": head.sha256}
    line = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    return line, Head(head.number + 1, hashlib.sha256(line).hexdigest())


def verify(lines: Iterable[bytes], expected: Head | None = None, noted: Head | None = None) -> Head:
    """Check that nothing was edited, removed or moved; the head of what is there.

    Args:
        expected: the head that the log ends with. Without it, missing entries at the end do not show.
        noted: a head that was noted elsewhere before; the log may have grown since.

    Raises:
        AuditBrokenError: it was.
    """
    head = Head()
    for line in lines:
        head = _head_behind(head, line)
        if noted is not None and head.number == noted.number:
            compare(head, noted)
    if noted is not None and head.number < noted.number:
        compare(head, noted)
    if expected is not None:
        compare(head, expected)
    return head


def compare(head: Head, known: Head) -> None:
    """Check that a log ends with the head that is known of it.

    Raises:
        AuditBrokenError: it does not.
    """
    if head.number < known.number:
        raise AuditBrokenError(
            f"the log ends with entry {head.number}, and entry {known.number} was its newest before"
        )
    if head != known:
        raise AuditBrokenError(f"entry {head.number} has the hash {head.sha256}, expected was {known.sha256}")


def _head_behind(head: Head, line: bytes) -> Head:
    """The head that the next line makes."""
    number = head.number + 1
    try:
        entry = json.loads(line)
        found, previous = entry["number"], entry["previous"]
    except (ValueError, KeyError, TypeError):
        raise AuditBrokenError(f"entry {number} is no entry of an audit log") from None
    if found != number:
        raise AuditBrokenError(f"entry {number} is missing or moved: entry {found!r} is in its place")
    if previous != head.sha256:
        raise AuditBrokenError(
            f"entry {number} does not follow entry {head.number} as it is: one of the two was changed"
        )
    return Head(number, hashlib.sha256(line).hexdigest())


def _behind(end: ChainEnd, line: bytes) -> ChainEnd:
    head = _head_behind(Head(end.sequence, end.hash.hex()) if end.sequence else Head(), line)
    return ChainEnd(head.number, bytes.fromhex(head.sha256))


AUDIT = ChainedLog("audit", "audit log", _behind)


def shortened(text: str) -> str:
    """A value that somebody else chose, short enough for an entry."""
    return text if len(text) <= _VALUE_LENGTH_MAX else f"{text[: _VALUE_LENGTH_MAX - 3]}..."
