"""`mumian-bench`: the platform measured, one subcommand each."""

from __future__ import annotations

import click

from mumian_orchestrator.bench.gap.command import gap
from mumian_orchestrator.bench.openb.command import openb
from mumian_orchestrator.bench.rtt.command import rtt
from mumian_orchestrator.bench.sim.command import compare, sim
from mumian_orchestrator.bench.sim.import_command import import_
from mumian_orchestrator.bench.sim.plan_command import plan_capacity
from mumian_orchestrator.bench.sim.what_if_command import what_if
from mumian_orchestrator.bench.submit import submit


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure the platform. Figures come as lines `name value unit`, or as JSON."""


main.add_command(compare)
main.add_command(gap)
main.add_command(import_)
main.add_command(openb)
main.add_command(plan_capacity)
main.add_command(rtt)
main.add_command(sim)
main.add_command(submit)
main.add_command(what_if)


if __name__ == "__main__":
    main()
