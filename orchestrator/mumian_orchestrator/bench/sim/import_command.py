"""`mumian-bench import`: a live system's last week as a scenario."""

from __future__ import annotations

import time
from pathlib import Path

import click
import yaml
from mumian.errors import MumianError

from mumian_orchestrator.bench.sim.command import BadInputError
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.importing import scenario_of
from mumian_orchestrator.bench.sim.recording import from_coordinator, with_jobs_of_backup
from mumian_orchestrator.bench.sim.scenario import read
from mumian_orchestrator.ports.backup_file import BackupFileError


@click.command("import")
@click.argument("file", metavar="SCENARIO", type=click.Path(path_type=Path))
@click.option(
    "--coordinator",
    metavar="HOST:PORT",
    help="Whose fleet and jobs. [env MUMIAN_COORDINATOR, then 127.0.0.1:7070]",
)
@click.option(
    "--tenant", "tenants", multiple=True, help="Whose jobs; repeatable. Default: those of `default`."
)
@click.option(
    "--backup",
    type=click.Path(path_type=Path),
    help="Take the jobs, of all tenants, from this file that `mumian-coordinator backup` has written.",
)
@click.option(
    "--last-h", type=click.FloatRange(0.01), help="Only the last hours; default: since the first job."
)
@click.option(
    "--tick", "tick_s", type=click.IntRange(1, 3600), default=60, show_default=True, help="Seconds."
)
def import_(
    file: Path,
    coordinator: str | None,
    tenants: tuple[str, ...],
    backup: Path | None,
    last_h: float | None,
    tick_s: int,
) -> None:
    """Write SCENARIO, a file for `sim` and `compare`: the fleet as it is, which task came when, and for how
    long it ran.
    """
    try:
        recording = from_coordinator(coordinator, () if backup else tenants or ("default",), time.time())
        if backup is not None:
            recording = with_jobs_of_backup(recording, backup)
        start_s = None if last_h is None else recording.end_unix_s - 3600 * last_h
        imported = scenario_of(recording, file.stem, tick_s, start_s)
        scenario = read(imported.raw)
        text = yaml.safe_dump(imported.raw, sort_keys=False, default_flow_style=None, width=120)
        file.write_text(f"# Recorded from a live system: {recording.origin}.\n{text}")
    except (ScenarioError, BackupFileError, MumianError) as error:
        raise BadInputError(str(error)) from error
    except OSError as error:
        raise BadInputError(f"{file} cannot be written: {error.strerror}") from error
    tasks = sum(len(job.trace_s) * sum(group.count for group in job.groups) for job in scenario.jobs)
    click.echo(
        f"{file}: {len(scenario.sites)} sites, {scenario.node_count} nodes, {tasks} tasks, "
        f"{scenario.duration_s / 3600:.2f} hours. Next: mumian-bench sim {file}"
    )
    for sentence in imported.left_out:
        click.echo(f"not as recorded: {sentence}")
