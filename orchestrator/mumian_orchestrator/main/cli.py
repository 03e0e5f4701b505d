"""`mumian-coordinator`: runs a coordinator, or one of the operators' commands on its store."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import click

from mumian_orchestrator.adapters.grpc.server import PortTakenError
from mumian_orchestrator.adapters.telemetry.exporter import MetricsPortTakenError
from mumian_orchestrator.main.config import ConfigError, host_and_port, is_loopback, load
from mumian_orchestrator.main.coordinator import run
from mumian_orchestrator.main.operations import backup, defragment, doctor, restore
from mumian_orchestrator.ports.store import HalfRestoredError


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "path", type=click.Path(path_type=Path), help="YAML file; needed to run one.")
@click.option("--insecure-no-tls", is_flag=True, help="Listen beyond this machine without TLS.")
@click.pass_context
def main(context: click.Context, path: Path | None, insecure_no_tls: bool) -> None:
    """Run a coordinator: tenants, ops and agents talk to it on one port. With a command: see to its store."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    if context.invoked_subcommand is not None:
        return
    if path is None:
        raise click.UsageError("Missing option '--config'.")
    try:
        config = load(path)
        for name, address in (("listen", config.listen), ("metrics", config.metrics)):
            if not address or is_loopback(host_and_port(name, address)[0]) or insecure_no_tls:
                continue
            raise ConfigError(
                f"{name} ({address}) can be reached from other machines, and TLS is not there yet; "
                "listen on 127.0.0.1, or add --insecure-no-tls on a network that you trust"
            )
        asyncio.run(run(config))
    except (ConfigError, PortTakenError, MetricsPortTakenError) as error:
        print(f"mumian-coordinator: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except HalfRestoredError as error:
        print(f"mumian-coordinator: {error}", file=sys.stderr)
        raise SystemExit(1) from None


main.add_command(backup)
main.add_command(defragment)
main.add_command(doctor)
main.add_command(restore)

if __name__ == "__main__":
    main()
