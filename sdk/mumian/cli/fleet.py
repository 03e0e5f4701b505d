"""`mumian sites`, `brake`, `nodes`, `zones` and `links`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mumian.api.v1 import fleet_service_pb2 as pb
from mumian.api.v1.fleet_pb2 import METER_SIDE_FACILITY, METER_SIDE_IT, PROBE_METHOD_GRPC, Link, Node, Site
from mumian.cli import figures, words
from mumian.cli.json_output import print_json
from mumian.cli.session import Session, pass_session, shared_options

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@shared_options
@pass_session
def sites(session: Session) -> None:
    """List the sites: health, PUE, prices, power and what is free."""
    found, brake = list(session.client.sites()), session.client.disconnect_brake()
    if session.json:
        print_json(pb.ListSitesResponse(sites=found, disconnect_brake=brake))
    elif not found:
        session.console.print("no site is connected; `mumian-agent run --config site.yaml` connects one")
    else:
        session.console.print(site_table(found))
        for site in found:
            _print_power(session, site)
            _print_places(session, site)
        if brake.engaged:
            session.console.print(f"brake: {brake.summary}", style="bold red", soft_wrap=True)


@click.command()
@click.option("--release", is_flag=True, help="Replace lost tasks now, whatever is silent.")
@shared_options
@pass_session
def brake(session: Session, release: bool) -> None:
    """Show, or release, the brake on replacements that many silent sites engage."""
    client = session.client
    shown = client.release_disconnect_brake() if release else client.disconnect_brake()
    if session.json:
        print_json(shown)
    else:
        told = shown.summary or f"the brake is released; {shown.site_count} sites are known"
        session.console.print(told, soft_wrap=True)


@click.command()
@click.argument("site_id", metavar="[SITE]", default="")
@shared_options
@pass_session
def nodes(session: Session, site_id: str) -> None:
    """List the nodes of a site, or of all."""
    found = list(session.client.nodes(site_id))
    if session.json:
        print_json(pb.ListNodesResponse(nodes=found))
    elif not found:
        session.console.print(
            f"no node{f' of site {site_id}' if site_id else ''}; `mumian sites` lists sites"
        )
    else:
        session.console.print(_node_table(found))
        for node in found:
            _print_node(session, node)


@click.command()
@shared_options
@pass_session
def zones(session: Session) -> None:
    """List the zones where users are, and the sites nearest to each."""
    found = list(session.client.zones())
    if session.json:
        print_json(pb.ListZonesResponse(zones=found))
        return
    if not found:
        session.console.print("no zone is configured; the coordinator's config names them")
        return
    from mumian.cli.tables import table

    links_by_zone: dict[str, list[Link]] = {}
    for link in session.client.links():
        links_by_zone.setdefault(link.from_id, []).append(link)
    made = table(
        "zone", "title", "reflector", "nearest sites, RTT p99 ms", wrapped=("nearest sites, RTT p99 ms",)
    )
    for zone in found:
        nearest = sorted(links_by_zone.get(zone.id, ()), key=lambda link: link.rtt_p99_us)[:3]
        shown = ", ".join(f"{link.to_site_id} {figures.ms(link.rtt_p99_us)}{_room(link)}" for link in nearest)
        made.add_row(zone.id, zone.title, zone.reflector, shown or "nothing measured yet")
    session.console.print(made)


@click.command()
@click.argument("from_id", metavar="[ZONE_OR_SITE]", default="")
@shared_options
@pass_session
def links(session: Session, from_id: str) -> None:
    """List round-trip times to the sites, from a zone or a site."""
    found = list(session.client.links(from_id))
    if session.json:
        print_json(pb.ListLinksResponse(links=found))
        return
    if not found:
        session.console.print(f"no link{f' from {from_id}' if from_id else ''} is known yet")
        return
    from mumian.cli.tables import table

    # Most links have no limit that anybody knows.
    limits = ("Mbit/s used",) if any(link.bandwidth_kbps for link in found) else ()
    right = ("RTT p50 ms", "RTT p99 ms", *limits, "samples", "age")
    made = table("from", "to site", *right, "source", right=right)
    for link in found:
        made.add_row(
            link.from_id,
            link.to_site_id,
            f"{link.rtt_p50_us / 1000:.2f}",
            f"{link.rtt_p99_us / 1000:.2f}",
            *(_used(link.bandwidth_kbps_allocated, link.bandwidth_kbps, 1000) for _ in limits),
            str(link.sample_count),
            figures.age(link.sample_time),
            _source(link),
        )
    session.console.print(made)


def _source(link: Link) -> str:
    error = f", {link.rtt_error_us / 1000:.2f} ms of it error" if link.rtt_error_us else ""
    method = " by gRPC" if link.probe_method == PROBE_METHOD_GRPC else ""
    return f"{words.source(link.source)}{method}{error}"


def site_table(found: Sequence[Site]) -> Table:
    """The sites with how full they are; used over capacity is what is promised to tasks."""
    from mumian.cli.tables import bar, state, table

    caps = ("cap kW used",) if any(site.power_cap_mw for site in found) else ()
    right = ("PUE", "IT W", "site W", "tasks", "memory GiB", "devices", *caps)
    made = table("site", "tier", "health", *right[:4], "cores", *right[4:], right=right)
    for site in found:
        usage = site.usage
        made.add_row(
            site.id,
            words.tier(site.tier),
            state(words.health(site.health)),
            figures.pue(site.pue.average_permille),
            figures.watts(site.it_power_mw),
            figures.watts(site.facility_power_mw),
            str(usage.allocation_count),
            bar(usage.cpu_milli_allocated, usage.cpu_milli_capacity)
            + f" {figures.cores(usage.cpu_milli_allocated)} of {figures.cores(usage.cpu_milli_capacity)}",
            f"{figures.gib(usage.memory_mib_allocated)} of {figures.gib(usage.memory_mib_capacity)}",
            f"{figures.cores(usage.accelerator_milli_allocated)} of "
            f"{figures.cores(usage.accelerator_milli_capacity)}"
            if usage.accelerator_milli_capacity
            else figures.UNKNOWN,
            *(_used(usage.facility_power_mw_allocated, site.power_cap_mw, 10**6) for _ in caps),
        )
    return made


def _print_power(session: Session, site: Site) -> None:
    """Where a site's PUE and power come from, and which of its meters are not believed."""
    if not site.meters:
        return
    pue = site.pue
    told = [
        f"PUE {figures.pue(pue.average_permille)} {words.source(pue.source)}",
        f"of one more watt {figures.pue(pue.marginal_permille)} {words.source(pue.marginal_source)}",
    ]
    for side, word in ((METER_SIDE_IT, "IT W"), (METER_SIDE_FACILITY, "site W")):
        used = next((each for each in site.meters if each.side == side and each.in_use), None)
        told.append(
            f"{word} by {used.name}, {figures.age(used.sample_time)} old" if used else f"{word} modelled"
        )
    session.console.print(f"{site.id}: {'; '.join(told)}", style="dim", soft_wrap=True)
    for each in site.meters:
        if each.fault:
            age = figures.age(each.sample_time)
            last = f"last believed {age} ago" if each.sample_time.seconds else "never believed"
            session.console.print(
                f"{site.id}: meter {each.name} {each.fault}; {last}", style="yellow", soft_wrap=True
            )


def _print_places(session: Session, site: Site) -> None:
    """What a site tells of its topology, for jobs that ask for one switch or rack."""
    usage = site.usage
    if usage.switch_count or usage.rack_count:
        told = [
            *([figures.count(usage.switch_count, "switch")] if usage.switch_count else []),
            *([figures.count(usage.rack_count, "rack")] if usage.rack_count else []),
        ]
        of_none = figures.count(usage.switchless_node_count, "node")
        rest = f"; {of_none} of which no switch is known" if usage.switchless_node_count else ""
        session.console.print(f"{site.id}: {', '.join(told)}{rest}", style="dim", soft_wrap=True)


def _print_node(session: Session, node: Node) -> None:
    """What of a node is not offered, and where its energy went."""
    withheld = [
        *([f"{figures.cores(node.cpu_milli_withheld)} cores"] if node.cpu_milli_withheld else []),
        *([f"{figures.gib(node.memory_mib_withheld)} GiB"] if node.memory_mib_withheld else []),
        *([figures.count(len(node.devices_withheld), "device")] if node.devices_withheld else []),
    ]
    if withheld:
        session.console.print(
            f"{node.id}: not offered: {', '.join(withheld)}; other processes use them, or they are faulty",
            style="dim",
            soft_wrap=True,
        )
    energy = node.energy
    if energy.metered_uj:
        session.console.print(
            f"{node.id}: {figures.watt_hours(energy.metered_uj)} Wh {words.source(energy.source)}: tasks "
            f"{figures.watt_hours(energy.allocations_uj)}, others {figures.watt_hours(energy.others_uj)}, "
            f"idle {figures.watt_hours(energy.idle_uj)}",
            style="dim",
            soft_wrap=True,
        )


def _used(used: int, limit: int, unit: int) -> str:
    """ "0.45 of 8"; without a limit there is nothing to tell."""
    return f"{used / unit:g} of {limit / unit:g}" if limit else figures.UNKNOWN


def _room(link: Link) -> str:
    """What tasks may still reserve of a link, where a limit is known."""
    if not link.bandwidth_kbps:
        return ""
    free_kbps = max(0, link.bandwidth_kbps - link.bandwidth_kbps_allocated)
    return f" ({free_kbps / 1000:g} of {link.bandwidth_kbps / 1000:g} Mbit/s free)"


def _node_table(found: Sequence[Node]) -> Table:
    from mumian.cli.tables import state, table

    right = ("cores", "memory GiB", "busy %")
    # Many sites do not tell where in them a node is.
    places = [name for name in ("switch", "rack") if any(getattr(node, f"{name}_id") for node in found)]
    made = table(
        "node",
        "arch",
        "health",
        *right,
        "accelerators",
        *places,
        "labels",
        right=right,
        wrapped=("accelerators", "labels"),
    )
    for node in found:
        devices = ", ".join(f"{a.count} {a.model}" for a in node.accelerators)
        promised_milli = sum(share.milli for share in node.devices_allocated)
        if promised_milli:
            devices += f", {figures.cores(promised_milli)} taken"
        made.add_row(
            node.id,
            node.arch,
            state(words.health(node.health)),
            f"{figures.cores(node.cpu_milli_allocated)} of {figures.cores(node.cpu_milli)}",
            f"{figures.gib(node.memory_mib_allocated)} of {figures.gib(node.memory_mib)}",
            f"{node.cpu_used_permille / 10:.0f}",
            devices or figures.UNKNOWN,
            *(getattr(node, f"{name}_id") or figures.UNKNOWN for name in places),
            ", ".join(f"{key}={value}" for key, value in sorted(node.labels.items())) or figures.UNKNOWN,
        )
    return made
