"""What somebody who looks for faults finds: each thing that was looked at, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mumian.api.v1.ops_service_pb2 import (
    FINDING_STATE_FAIL,
    FINDING_STATE_OK,
    FINDING_STATE_WARN,
    Finding,
)

_CLOCK_OFF_S = 5.0
_WORDS = {FINDING_STATE_OK: "ok", FINDING_STATE_WARN: "warn", FINDING_STATE_FAIL: "fail"}


def ok(check: str, message: str) -> Finding:
    """It is as it should be."""
    return Finding(check=check, state=FINDING_STATE_OK, message=message)


def warn(check: str, message: str, advice: str) -> Finding:
    """It works, and may stop working."""
    return Finding(check=check, state=FINDING_STATE_WARN, message=message, advice=advice)


def fail(check: str, message: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check=check, state=FINDING_STATE_FAIL, message=message, advice=advice)


def own_clock_finding(coordinator_s: float, begun_s: float, ended_s: float) -> Finding:
    """How far this clock is off: the coordinator told its time at some moment of a call (Unix time, s)."""
    off_s = max(begun_s - coordinator_s, coordinator_s - ended_s, 0.0)
    if off_s < _CLOCK_OFF_S:
        return ok("clock", f"the clock of this machine is within {_CLOCK_OFF_S:.0f} s of the coordinator's")
    which = "behind" if coordinator_s > ended_s else "ahead of"
    message = f"the clock of this machine is {off_s:.0f} s {which} the coordinator's"
    return warn("clock", message, "set both by NTP")


def told(found: Iterable[Finding]) -> Iterator[tuple[str, str]]:
    """For people: the lines, the worst findings last, each with the word of its state; advice has none."""
    for finding in sorted(found, key=lambda finding: finding.state):
        yield _WORDS.get(finding.state, "?"), f"{finding.check}: {finding.message}"
        if finding.advice:
            yield "", f"do: {finding.advice}"


def has_failed(found: Iterable[Finding]) -> bool:
    """Whether something does not work."""
    return any(finding.state == FINDING_STATE_FAIL for finding in found)
