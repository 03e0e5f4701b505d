"""What a diagnosis finds: each thing that was looked at, and what to do about it."""

from __future__ import annotations

from mumian.api.v1.ops_service_pb2 import (
    FINDING_STATE_FAIL,
    FINDING_STATE_OK,
    FINDING_STATE_WARN,
    Finding,
)


def ok(check: str, message: str) -> Finding:
    """It is as it should be."""
    return Finding(check=check, state=FINDING_STATE_OK, message=message)


def warn(check: str, message: str, advice: str) -> Finding:
    """It works, and may stop working."""
    return Finding(check=check, state=FINDING_STATE_WARN, message=message, advice=advice)


def fail(check: str, message: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check=check, state=FINDING_STATE_FAIL, message=message, advice=advice)
