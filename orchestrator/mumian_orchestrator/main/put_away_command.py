"""`mumian-coordinator ledger put-away`, and `audit put-away`: months that are over go to files."""

from __future__ import annotations

from pathlib import Path

import click

from mumian_orchestrator.adapters.disk.log_files import DiskLogFiles
from mumian_orchestrator.domain.chained_log import ChainBrokenError, ChainedLog
from mumian_orchestrator.main.operations import ConfigOption, OpenedStore, leave, run_on_store
from mumian_orchestrator.ports.log_files import LogFilesError
from mumian_orchestrator.services.store.put_away import PutAwayRefusedError, put_away


def put_away_command(log: ChainedLog, readers: str) -> click.Command:
    """The command for a log; `readers` are the commands that find in the files what left the store."""

    @click.command(
        "put-away",
        help=f"""Move the months that are over from the store to files in `records_dir`.

        They stay a part of the {log.title}: {readers} read them there. Coordinators need not stop.
        Broken off, it goes on the next time.
        """,
    )
    @ConfigOption
    def command(config_path: Path) -> None:
        run_on_store(config_path, lambda store: _put_away(store, config_path, log))

    return command


async def _put_away(store: OpenedStore, config_path: Path, log: ChainedLog) -> str:
    folder = store.config.records_dir
    if not folder:
        leave(2, f"{config_path} has no records_dir; give a folder that all coordinators share")
    try:
        made = await put_away(store.kv, store.config.key_prefix, log, DiskLogFiles(Path(folder)))
    except ChainBrokenError as error:
        leave(1, f"the {log.title} is wrong: {error}")
    except (LogFilesError, PutAwayRefusedError) as error:
        leave(1, str(error))
    if not made:
        return "nothing to put away: no month is over in which something was entered"
    months = ", ".join(file.month for file in made)
    return f"put away {months}: entries up to {made[-1].sequence} lie in {folder}; back that folder up, too"
