"""`mumian-bench`: the platform measured, one subcommand each."""

from __future__ import annotations

import click

from mumian_orchestrator.bench.submit import submit


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure the platform. Figures come as lines `name value unit`."""


main.add_command(submit)
