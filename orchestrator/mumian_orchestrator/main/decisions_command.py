"""`mumian-coordinator decisions`: what was decided, and why, from the bytes that were recorded of it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import click
from mumian.cli.considered import print_considered
from mumian.cli.figures import count
from mumian.cli.json_output import as_dict, print_json_line
from mumian.cli.session import Session, output_option, pass_session
from mumian.cli.tables import table
from mumian.storage.v1.decision_pb2 import DecisionRecord
from mumian_core.v1.engine_pb2 import PlaceRequest

from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.core.replay import MadeAgain, condensed, made_again
from mumian_orchestrator.adapters.disk.decision_files import DecisionFilesError, Sealed, records_in
from mumian_orchestrator.adapters.disk.decision_log import DiskDecisionLog
from mumian_orchestrator.main.config import Config, ConfigError, load
from mumian_orchestrator.main.operations import ConfigOption, leave
from mumian_orchestrator.ports.engine import EngineRefusedError

_MIB = 1024 * 1024


def decision_log_of(config: Config) -> DiskDecisionLog | None:
    """Where a coordinator keeps its decisions; None: nowhere.

    Raises:
        ConfigError: it cannot write there.
    """
    if not config.decisions_dir:
        return None
    folder = Path(config.decisions_dir)
    try:
        return DiskDecisionLog(folder, config.decisions_keep_mib * _MIB, condensed, SystemClock())
    except OSError as error:
        raise ConfigError(f"decisions_dir ({folder}) cannot be written: {error.strerror}") from None


@click.group()
def decisions() -> None:
    """What this coordinator's engine has decided, made again from what was recorded."""


@decisions.command("list")
@ConfigOption
@output_option
@pass_session
def list_(session: Session, config_path: Path) -> None:
    """List the decisions that are kept, oldest first."""
    with _failures_told():
        found = list(made_again(_records(config_path), lambda _: True))
    if session.json:
        for made in found:
            print_json_line(_shown(made))
        return
    right = ("decision", "placed", "waiting")
    shown = table("time", *right, "jobs", "made again", right=right, wrapped=("jobs",))
    for made in found:
        plan = made.plan
        jobs = ", ".join(job.job_id for job in made.request.jobs)
        placed, waiting = len(plan.placements), len(plan.unplaced) + len(plan.deferred)
        shown.add_row(_time(made), str(made.number), str(placed), str(waiting), jobs, _verdict(made))
    session.console.print(shown)


@decisions.command()
@click.argument("job_id", metavar="JOB")
@ConfigOption
@output_option
@pass_session
def explain(session: Session, job_id: str, config_path: Path) -> None:
    """Show each decision on JOB: what was considered, with the figures of that moment, and what was chosen.

    Each is made again from the state that the engine had then, and compared with what it answered.
    """
    with _failures_told():
        found = list(made_again(_records(config_path), _is_about(job_id)))
    if not found:
        leave(1, f"no decision on job {job_id} is kept here; `decisions list` shows those that are")
    if session.json:
        for made in found:
            print_json_line(_shown(made, job_id))
        return
    # A job that waits is asked about again and again: what reads the same is shown once.
    for text, alike in itertools.groupby(found, key=lambda made: _considered(session, made, job_id)):
        made, *more = alike
        session.console.print(f"{_time(made)}  decision {made.number}: {_verdict(made)}", style="bold")
        session.console.print(f"\n{text}", end="")
        if more:
            verdict = _verdict(next((each for each in more if not each.is_same), made))
            times = f"{count(len(more), 'more decision')} until {_time(more[-1])}"
            session.console.print(f"{times} say the same: {verdict}\n", style="dim")


@decisions.command()
@ConfigOption
@click.option("--head", metavar="NUMBER:HASH", help="What `verify` has printed before, kept elsewhere.")
def verify(config_path: Path, head: str | None) -> None:
    """Check the chain of hashes, and exit with 1 if a record was changed or is missing."""
    last: Sealed | None = None
    is_there = head is None
    with _failures_told():
        for last in records_in(_folder(config_path)):
            is_there = is_there or head == _head(last)
    if last is None:
        leave(1, "nothing is kept")
    if not is_there:
        leave(
            1,
            f"the record of --head {head} is not there: all was written anew, or it is thrown away by now",
        )
    click.echo(
        f"{count(last.record.number, 'record')}, none changed; keep this elsewhere: --head {_head(last)}"
    )


def _folder(config_path: Path) -> Path:
    try:
        config = load(config_path)
    except ConfigError as error:
        leave(2, str(error))
    if not config.decisions_dir:
        leave(2, f"{config_path} has no decisions_dir, so no decisions are kept; give a folder to keep them")
    return Path(config.decisions_dir)


def _records(config_path: Path) -> Iterator[DecisionRecord]:
    return (sealed.record for sealed in records_in(_folder(config_path)))


def _is_about(job_id: str) -> Callable[[PlaceRequest], bool]:
    return lambda request: any(job.job_id == job_id for job in request.jobs)


@contextlib.contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except DecisionFilesError as error:
        leave(1, str(error))
    except EngineRefusedError as error:
        leave(1, f"this version cannot make it again: {error}")


def _considered(session: Session, made: MadeAgain, job_id: str) -> str:
    with session.console.capture() as shown:
        print_considered(
            session.console, (each.explanation for each in made.plan.explanations if each.job_id == job_id)
        )
    return shown.get()


def _head(sealed: Sealed) -> str:
    return f"{sealed.record.number}:{sealed.hash.hex()}"


def _time(made: MadeAgain) -> str:
    return datetime.fromtimestamp(made.time_unix_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")


def _verdict(made: MadeAgain) -> str:
    return "the same, bit for bit" if made.is_same else "DIFFERENT"


def _shown(made: MadeAgain, job_id: str | None = None) -> dict[str, object]:
    return {
        "number": made.number,
        "time_unix_ms": made.time_unix_ms,
        "is_same": made.is_same,
        "job_ids": [job.job_id for job in made.request.jobs],
        "placements": [as_dict(p) for p in made.plan.placements if job_id in (None, p.job_id)],
        "explanations": [as_dict(e) for e in made.plan.explanations if job_id in (None, e.job_id)],
    }
