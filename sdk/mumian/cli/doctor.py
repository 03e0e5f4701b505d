"""`mumian doctor`: whether everything works, and what to do where it does not."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from mumian.api.v1 import ops_service_pb2 as pb
from mumian.cli.failures import EXIT_FAILED, EXIT_UNREACHABLE
from mumian.cli.json_output import print_json
from mumian.cli.session import Session, pass_session, shared_options
from mumian.errors import MumianError

_WORDS = {pb.FINDING_STATE_OK: "ok", pb.FINDING_STATE_WARN: "warn", pb.FINDING_STATE_FAIL: "fail"}
_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}
_CLOCK_OFF_S = 5.0


@click.command()
@shared_options
@pass_session
def doctor(session: Session) -> int:
    """Check the platform: store, leader, agents, clocks and queues. Exits with 1 if something fails."""
    try:
        begun_s = time.time()
        response = session.client.diagnose()
        ended_s = time.time()
    except MumianError as error:
        if error.reason != "CLIENT_UNREACHABLE":
            raise
        advice = "start it; on its machine `mumian-coordinator doctor --config FILE` looks at its etcd"
        unreachable = pb.Finding(
            check="coordinator", state=pb.FINDING_STATE_FAIL, message=error.message, advice=advice
        )
        show(session, [unreachable])
        return EXIT_UNREACHABLE
    took_ms = 1000 * (ended_s - begun_s)
    found = [
        pb.Finding(
            check="coordinator",
            state=pb.FINDING_STATE_OK,
            message=f"{session.client.address} answers; to look at all this took it {took_ms:.0f} ms",
        ),
        _own_clock(response.coordinator_time.ToNanoseconds() / 1e9, begun_s, ended_s),
        *response.findings,
    ]
    return show(session, found)


def show(session: Session, found: Sequence[pb.Finding]) -> int:
    """Print findings, the worst last; the exit code that they mean."""
    if session.json:
        print_json(pb.DiagnoseResponse(findings=found))
    else:
        from rich.text import Text

        for finding in sorted(found, key=lambda finding: finding.state):
            word = _WORDS.get(finding.state, "?")
            line = Text(f"{word:5}", style=_STYLES.get(word, ""))
            session.console.print(line, f"{finding.check}: {finding.message}", soft_wrap=True)
            if finding.advice:
                session.console.print(f"      do: {finding.advice}", soft_wrap=True)
    return EXIT_FAILED if any(finding.state == pb.FINDING_STATE_FAIL for finding in found) else 0


def _own_clock(coordinator_s: float, begun_s: float, ended_s: float) -> pb.Finding:
    # It told its time at some moment of the call.
    off_s = max(begun_s - coordinator_s, coordinator_s - ended_s, 0.0)
    if off_s < _CLOCK_OFF_S:
        message = f"the clock of this machine is within {_CLOCK_OFF_S:.0f} s of the coordinator's"
        return pb.Finding(check="clock", state=pb.FINDING_STATE_OK, message=message)
    which = "behind" if coordinator_s > ended_s else "ahead of"
    return pb.Finding(
        check="clock",
        state=pb.FINDING_STATE_WARN,
        message=f"the clock of this machine is {off_s:.0f} s {which} the coordinator's",
        advice="set both by NTP",
    )
