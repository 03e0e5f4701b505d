"""The table of the sites that were considered for a task group, and what would have helped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mumian.api.v1.explanation_pb2 import Explanation, Relaxation, SiteVerdict
from mumian.cli import figures, words
from mumian.cli.tables import table

CHOSEN_MARK = "▶"


def print_considered(console: Console, explanations: Iterable[Explanation]) -> None:
    """One heading and one table for each task group."""
    for explanation in explanations:
        console.print(_heading(explanation))
        if explanation.sites:
            console.print(_sites(explanation))
        elif not explanation.held_task_count:
            console.print("no site is connected", style="dim")
        console.print()


def is_settled(explanation: Explanation) -> bool:
    """Whether every task has a place, or waits for a cheaper hour or for a quota."""
    waiting_count = explanation.deferred_task_count + explanation.held_task_count
    return explanation.placed_task_count + waiting_count >= explanation.task_count


def deferred(explanation: Explanation) -> str:
    """Until when tasks wait, and what that saves; empty when none does."""
    if not explanation.deferred_task_count:
        return ""
    saves = figures.short_cny(explanation.deferral_saves_microcny)
    return (
        f"{figures.count(explanation.deferred_task_count, 'task')} of group {explanation.task_group} "
        f"deferred to {figures.clock(explanation.deferred_to_unix_s)}, saves CNY {saves}"
    )


def waiting(explanation: Explanation) -> str:
    """What its tasks without a place wait for; empty when all are placed."""
    told = [deferred(explanation), held(explanation), "" if is_settled(explanation) else why_not(explanation)]
    return "; ".join(part for part in told if part)


def held(explanation: Explanation) -> str:
    """What a quota holds back; empty when it holds nothing."""
    if not explanation.held_task_count:
        return ""
    tasks = figures.count(explanation.held_task_count, "task")
    return f"{tasks} of group {explanation.task_group} held back by the {explanation.held_reason}"


def why_not(explanation: Explanation) -> str:
    """Why tasks have no place, and the smallest change that would give one more of them one."""
    waiting_count = explanation.deferred_task_count + explanation.held_task_count
    missing = explanation.task_count - explanation.placed_task_count - waiting_count
    counts = ", ".join(
        f"{words.filter_name(count.filter)} {figures.count(count.node_count, 'node')}"
        for count in explanation.rejections
    )
    reason = f"refused by {counts}" if counts else "no site has enough left"
    if not explanation.nodes_considered:
        reason = "no node is connected"
    if explanation.share_reason:
        reason += f", and {explanation.share_reason}"
    verb = "has" if missing == 1 else "have"
    line = f"{figures.count(missing, 'task')} of group {explanation.task_group} {verb} no place: {reason}"
    if explanation.HasField("relaxation"):
        line += f"; {relaxed(explanation.relaxation)}"
    return line


def relaxed(relaxation: Relaxation) -> str:
    """The change that would help, in the words of a job spec."""
    key = words.key_of(relaxation)
    change = f"{key} {relaxation.to}" if relaxation.to else f"no {key}"
    before = f" instead of {getattr(relaxation, 'from')}" if getattr(relaxation, "from") else ""
    return f"it would fit with {change}{before} at site {relaxation.site_id}"


def _heading(explanation: Explanation) -> Text:
    placed, total = explanation.placed_task_count, explanation.task_count
    style = "green" if is_settled(explanation) else "yellow"
    waits = f", {explanation.deferred_task_count} deferred" if explanation.deferred_task_count else ""
    waits += f", {explanation.held_task_count} held back" if explanation.held_task_count else ""
    if explanation.evicted_allocation_count:
        fallen = figures.count(explanation.evicted_allocation_count, "task")
        waits += f", in place of {fallen} of lower priority"
    return Text.assemble(
        ("group ", "dim"),
        (explanation.task_group, "bold"),
        ("  ", ""),
        (f"{placed} of {figures.count(total, 'task')} placed{waits}", style),
        (f"  {', '.join(_promise(explanation))}", "dim"),
    )


def _promise(explanation: Explanation) -> Iterator[str]:
    timed = [site.latency for site in explanation.sites if site.HasField("latency")]
    if timed:
        zones = sorted({latency.zone_id for latency in timed})
        yield f"budget {figures.short_ms(timed[0].budget_us)} ms from {', '.join(zones)}"
    if timed and timed[0].client_us:
        yield f"client {figures.short_ms(timed[0].client_us)} ms"
    yield f"{figures.count(explanation.nodes_considered, 'node')} considered"


def _sites(explanation: Explanation) -> Table:
    budgets = [site.latency.budget_us for site in explanation.sites if site.HasField("latency")]
    timed = ("RTT p99 ms", "compute ms", f"total/{figures.short_ms(budgets[0])} ms") if budgets else ()
    terms = figures.cost_terms(site.cost for site in explanation.sites)
    money = ("PUE", *(f"{word} CNY/h" for word in terms), "CNY/h")
    made = table("", "site", *timed, *money, "verdict", right=(*timed, *money), wrapped=("verdict",))
    for site in explanation.sites:
        chosen = site.chosen_task_count > 0
        style = "bold" if chosen else "dim" if site.HasField("rejection") else ""
        made.add_row(
            Text(CHOSEN_MARK if chosen else "", style="green"),
            site.site_id,
            *(_latency(site) if budgets else ()),
            figures.pue(site.pue_average_permille),
            *(figures.cny(getattr(site.cost, field)) for field in terms.values()),
            figures.cny(site.cost.total_microcny_per_hour) if site.HasField("cost") else figures.UNKNOWN,
            _verdict(site, explanation.task_count),
            style=style,
        )
    return made


def _latency(site: SiteVerdict) -> tuple[str, str, str]:
    latency = site.latency
    if not latency.link_known:
        return figures.UNKNOWN, figures.ms(latency.compute_us), figures.UNKNOWN
    about = "~" if latency.rtt_error_us else ""  # an estimate, its error included
    rtt = f"{about}{figures.ms(latency.rtt_p99_us)}"
    return rtt, figures.ms(latency.compute_us), figures.ms(latency.total_us)


def _verdict(site: SiteVerdict, task_count: int) -> Text:
    if site.chosen_task_count:
        share = f" for {site.chosen_task_count} of {task_count} tasks" if task_count > 1 else ""
        return Text(f"CHOSEN{share}{_users(site)}", style="bold green")
    if site.HasField("rejection"):
        return Text((site.rejection.reason or words.filter_name(site.rejection.filter)) + _users(site))
    return Text(f"fits{_users(site)}")


def _users(site: SiteVerdict) -> str:
    """Where a site serves some of the users in time, and not all."""
    within = site.latency.users_within_permille
    return f"; {within / 10:g} % of the users within the budget" if 0 < within < 1000 else ""
