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
from mumian.findings import fail, has_failed, ok, own_clock_finding, told

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


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
        show(session, [fail("coordinator", error.message, advice)])
        return EXIT_UNREACHABLE
    took_ms = 1000 * (ended_s - begun_s)
    found = [
        ok("coordinator", f"{session.client.address} answers; to look at all this took it {took_ms:.0f} ms"),
        own_clock_finding(response.coordinator_time.ToNanoseconds() / 1e9, begun_s, ended_s),
        *response.findings,
    ]
    return show(session, found)


def show(session: Session, found: Sequence[pb.Finding]) -> int:
    """Print findings, the worst last; the exit code that they mean."""
    if session.json:
        print_json(pb.DiagnoseResponse(findings=found))
    else:
        from rich.text import Text

        for word, line in told(found):
            session.console.print(Text(f"{word:5}", style=_STYLES.get(word, "")), line, soft_wrap=True)
    return EXIT_FAILED if has_failed(found) else 0
