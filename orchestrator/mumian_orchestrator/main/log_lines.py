"""The log on standard error: what somebody else chose stays within its line."""

from __future__ import annotations

import logging
import sys


class _OneLine(logging.Formatter):
    """Shows control characters in messages as escapes, so that no value can end a line and begin one that
    looks like ours, or move the cursor of a terminal. Tracebacks keep their lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- the name is logging's
        """One line for the message."""
        record.message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in record.message)
        return super().formatMessage(record)


def log_to_stderr() -> None:
    """Set the process's log up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
