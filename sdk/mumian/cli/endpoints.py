"""`mumian endpoints`."""

from __future__ import annotations

import click

from mumian.api.v1.job_service_pb2 import ListEndpointsResponse, TaskEndpoint
from mumian.cli import figures
from mumian.cli.json_output import print_json
from mumian.cli.session import Session, pass_session, shared_options


@click.command()
@click.argument("job", metavar="JOB")
@click.option("--from", "zone", metavar="ZONE", default="", help="Round-trip times from here, nearest first.")
@shared_options
@pass_session
def endpoints(session: Session, job: str, zone: str) -> None:
    """Show where a job's tasks answer: of those that run and are well.

    JOB is the id of a job or its name: then the newest one that has not ended.
    """
    found = session.client.endpoints(job, zone=zone)
    if session.json:
        print_json(ListEndpointsResponse(endpoints=found))
        return
    from mumian.cli.tables import table

    if not found:
        session.console.print(f"no task of {job} answers now; `mumian status` says why", style="dim")
        return
    figures_of = ("RTT p50 ms", "p99 ms") if zone else ()
    made = table("task", "port", "address", "site", *figures_of, right=figures_of)
    for each in found:
        made.add_row(
            f"{each.task_group}.{each.task_index}",
            each.endpoint.port,
            each.endpoint.address,
            each.site_id,
            *(_round_trips(each) if zone else ()),
        )
    session.console.print(made)


def _round_trips(found: TaskEndpoint) -> tuple[str, str]:
    if not found.HasField("rtt_p99_us"):
        return figures.UNKNOWN, figures.UNKNOWN
    return figures.ms(found.rtt_p50_us), figures.ms(found.rtt_p99_us)
