"""`mumian share`."""

from __future__ import annotations

import click

from mumian.api.v1.share_pb2 import ResourceAmount, ResourceLimit, Share
from mumian.cli import figures
from mumian.cli.json_output import print_json
from mumian.cli.session import Session, pass_session, shared_options


@click.command()
@shared_options
@pass_session
def share(session: Session) -> None:
    """Show what the tenant holds of the fleet, and what it may: quotas, guarantee, weight."""
    found = session.client.share()
    if session.json:
        print_json(found)
        return
    from mumian.cli.tables import table

    right = ("cores", "GiB", "accelerators", "tasks")
    made = table("", *right, right=right)
    made.add_row("held", *_amount(found.held))
    made.add_row("quota", *_limit(found.quota))
    if _has_any(found.guaranteed):
        made.add_row("guaranteed", *_amount(found.guaranteed)[:3], "")
    for project in found.projects:
        made.add_section()
        made.add_row(f"project {project.project}: held", *_amount(project.held))
        made.add_row(f"project {project.project}: quota", *_limit(project.quota))
    made.add_section()
    made.add_row("fleet", *_amount(found.fleet)[:3], "")
    session.console.print(made)
    session.console.print(_turn(found), soft_wrap=True)


def _turn(share: Share) -> str:
    percent = f"{share.dominant_permille / 10:.1f}".rstrip("0").rstrip(".")
    return (
        f"tenant {share.tenant_id} holds {percent} % of the fleet's {share.dominant_resource} at weight "
        f"{share.weight}: of the tenants that wait, the one that holds least for its weight goes first. "
        f"Its jobs may have priorities up to {share.priority_max}."
    )


def _amount(amount: ResourceAmount) -> tuple[str, ...]:
    of_devices = figures.cores(amount.accelerator_milli)
    return figures.cores(amount.cpu_milli), figures.gib(amount.memory_mib), of_devices, str(amount.tasks)


def _limit(limit: ResourceLimit) -> tuple[str, ...]:
    most = ResourceAmount(
        cpu_milli=limit.cpu_milli,
        memory_mib=limit.memory_mib,
        accelerator_milli=limit.accelerator_milli,
        tasks=limit.tasks,
    )
    is_set = (
        limit.HasField("cpu_milli"),
        limit.HasField("memory_mib"),
        limit.HasField("accelerator_milli"),
        limit.HasField("tasks"),
    )
    return tuple(text if limited else "any" for limited, text in zip(is_set, _amount(most), strict=True))


def _has_any(amount: ResourceAmount) -> bool:
    return amount.ByteSize() > 0
