"""What the demo shows: progress while it works, then tables. Computes nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence

from mumian.api.v1.fleet_pb2 import Link
from mumian.api.v1.job_pb2 import Job
from mumian.cli import figures
from mumian.cli.considered import print_considered, waiting
from mumian.cli.tables import table
from rich.console import Console
from rich.text import Text

from examples.demo import city
from examples.demo.account import Usage
from examples.demo.baselines import Outcome
from examples.demo.workloads import Workload
from examples.demo.zone_client import Measurement

_WIDTH = 110


class Report:
    """One run's output."""

    def __init__(self) -> None:
        self._begun_s = time.monotonic()
        self._console = Console(markup=False, emoji=False, highlight=False)
        if not self._console.is_terminal:
            self._console.width = _WIDTH
        self._console.width = min(self._console.width, _WIDTH)

    @property
    def elapsed_s(self) -> float:
        """Since the start."""
        return time.monotonic() - self._begun_s

    def step(self, text: str) -> None:
        """A step that is done."""
        self._console.print(
            Text.assemble((f"{self.elapsed_s:6.1f} s  ", "dim"), ("✓ ", "green"), text), soft_wrap=True
        )

    @contextlib.contextmanager
    def doing(self, text: str) -> Iterator[None]:
        """A step that takes a while."""
        self._console.print(Text.assemble((f"{self.elapsed_s:6.1f} s  ", "dim"), f"… {text}"), soft_wrap=True)
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(text):
            yield

    def title(self, text: str, remark: str = "") -> None:
        """What comes next."""
        self._console.print()
        self._console.print(Text.assemble((text, "bold"), (f"  {remark}" if remark else "", "dim")))

    def round_trips(self, links: Iterable[Link]) -> None:
        """What the agents measured from the zones."""
        self.title("Round trips that the agents measured", "p50 / p99 ms, through the delay proxies")
        measured = {(link.from_id, link.to_site_id): link for link in links}
        sites = [place.id for place in city.PLACES]
        made = table("zone", *sites, right=sites)
        for zone in city.ZONES:
            cells = []
            for site in sites:
                link = measured[zone.id, site]
                cells.append(f"{figures.ms(link.rtt_p50_us)} / {figures.ms(link.rtt_p99_us)}")
            made.add_row(zone.id, *cells)
        self._console.print(made)

    def placement(self, job: Job, workload: Workload) -> None:
        """Where a job went, or why nowhere."""
        self.title(f"{workload.spec.name}: {workload.purpose}", f"job {job.id}")
        print_considered(self._console, job.explanations)
        for explanation in job.explanations:
            if told := waiting(explanation):
                self._console.print(told, style="yellow")

    def latencies(self, measured: Sequence[tuple[Job, Workload, Measurement]]) -> None:
        """What the users saw, against what they were promised."""
        sent = ", ".join(sorted({str(len(each.round_trips_ms)) for _, _, each in measured}))
        self.title(
            "Answers as the users saw them",
            f"in ms, {sent} requests each; compute is the median, total is p99 + client time",
        )
        columns = ("compute", "p50", "p99", "total", "budget", "in time")
        made = table("service", "served at", *columns, "promise", right=columns)
        for job, workload, measurement in measured:
            slo = job.spec.task_groups[0].latency_slo
            client_ms, budget_ms = slo.client_us / 1000, slo.budget_us / 1000
            total_ms = measurement.p(99) + client_ms
            kept = total_ms <= budget_ms
            made.add_row(
                workload.spec.name,
                job.allocations[-1].site_id,
                f"{measurement.compute_p50_ms:.1f}",
                f"{measurement.p(50):.1f}",
                f"{measurement.p(99):.1f}",
                f"{total_ms:.1f}",
                f"{budget_ms:.1f}",
                f"{measurement.share_within(budget_ms - client_ms):.1%}",
                Text("kept" if kept else "MISSED", style="bold green" if kept else "bold red"),
            )
        self._console.print(made)

    def remark(self, text: str) -> None:
        """One more sentence."""
        self._console.print(text, soft_wrap=True)

    def lines(self, lines: Iterable[str]) -> None:
        """What a program has said."""
        for line in lines:
            self._console.print(f"  {line}", style="dim", soft_wrap=True)

    def usages(self, usages: Sequence[Usage]) -> None:
        """Energy and money of what ran."""
        self.title(
            "Energy and cost of what ran",
            "by the allocations' account; IT J is modelled from CPU time",
        )
        columns = ("ran s", "IT J", "PUE", "meter J", "rent CNY", "power CNY", "mgCO2")
        made = table("job", "site", *columns, right=columns)
        for usage in usages:
            made.add_row(
                usage.name,
                usage.site,
                f"{usage.held_s:.1f}",
                f"{usage.it_j:.1f}",
                f"{usage.pue:.2f}" if usage.pue else figures.UNKNOWN,
                f"{usage.meter_j:.1f}",
                f"{usage.rent_cny:.6f}",
                f"{usage.energy_cny:.6f}",
                f"{usage.carbon_g * 1000:.1f}",
            )
        made.add_row(
            "total",
            "",
            "",
            f"{sum(usage.it_j for usage in usages):.1f}",
            "",
            f"{sum(usage.meter_j for usage in usages):.1f}",
            f"{sum(usage.rent_cny for usage in usages):.6f}",
            f"{sum(usage.energy_cny for usage in usages):.6f}",
            f"{sum(usage.carbon_g for usage in usages) * 1000:.1f}",
            style="bold",
        )
        self._console.print(made)

    def comparison(self, outcomes: Sequence[Outcome], jobs: Sequence[str]) -> None:
        """Ours beside the others, on the same links, prices and jobs."""
        self.title(
            "The same jobs placed in other ways",
            "by the same core, blind; judged by its verifier",
        )
        columns = ("promises", "CNY/h", "meter W")
        made = table("placement", *jobs, *columns, right=columns)
        for outcome in outcomes:
            kept = f"{outcome.promises_kept:.3g} of {outcome.promises}"
            style = "green" if outcome.promises_kept == outcome.promises else "red"
            made.add_row(
                outcome.name,
                *(outcome.sites or ["varies"] * len(jobs)),
                Text(kept, style=style),
                f"{outcome.cny_per_hour:.4f}",
                f"{outcome.meter_w:.1f}",
                style="bold" if outcome is outcomes[0] else "",
            )
        self._console.print(made)
        for outcome in outcomes:
            for broken in outcome.broken:
                self._console.print(f"  {outcome.name} breaks {broken}", style="dim", soft_wrap=True)

    def end(self, text: str) -> None:
        """The last line."""
        self._console.print()
        self._console.print(text, style="bold", soft_wrap=True)
