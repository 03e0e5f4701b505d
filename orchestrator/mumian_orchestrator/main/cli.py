"""`mumian-coordinator`: runs a coordinator, or one of the operators' commands on its store."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import uvloop

from mumian_orchestrator.adapters.grpc.server import PortTakenError
from mumian_orchestrator.adapters.telemetry.exporter import MetricsPortTakenError
from mumian_orchestrator.main.access_commands import audit, site, site_token, token
from mumian_orchestrator.main.config import ConfigError, load
from mumian_orchestrator.main.coordinator import run
from mumian_orchestrator.main.decisions_command import decisions
from mumian_orchestrator.main.ledger_command import ledger
from mumian_orchestrator.main.log_lines import log_to_stderr
from mumian_orchestrator.main.operations import backup, defragment, doctor, restore
from mumian_orchestrator.main.security import refuse_open_doors
from mumian_orchestrator.ports.store import HalfRestoredError


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "path", type=click.Path(path_type=Path), help="YAML file; needed to run one.")
@click.option("--expose-metrics", is_flag=True, help="Let other machines scrape metrics, without TLS.")
@click.pass_context
def main(context: click.Context, path: Path | None, expose_metrics: bool) -> None:
    """Run a coordinator: tenants, ops and agents talk to it on one port. With a command: see to its store."""
    log_to_stderr()
    if context.invoked_subcommand is not None:
        return
    if path is None:
        raise click.UsageError("Missing option '--config'.")
    try:
        config = load(path)
        refuse_open_doors(config, exposes_metrics=expose_metrics)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(config))
    except (ConfigError, PortTakenError, MetricsPortTakenError) as error:
        print(f"mumian-coordinator: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except HalfRestoredError as error:
        print(f"mumian-coordinator: {error}", file=sys.stderr)
        raise SystemExit(1) from None


main.add_command(audit)
main.add_command(backup)
main.add_command(decisions)
main.add_command(defragment)
main.add_command(doctor)
main.add_command(ledger)
main.add_command(restore)
main.add_command(site)
main.add_command(site_token)
main.add_command(token)

if __name__ == "__main__":
    main()
