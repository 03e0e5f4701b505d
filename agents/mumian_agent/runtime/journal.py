"""What the agent must know after it was killed: one small file an allocation, replaced in one step."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from google.protobuf import json_format
from mumian.agent.v1.agent_pb2 import AllocationStatus, RunAllocation

from mumian_agent.domain.allocation import AllocationKey, is_terminal
from mumian_agent.runtime.process_tree import ProcessId

log = logging.getLogger(__name__)

_KEPT_MAX = 500
# Of what ended tasks have written; those that ended first are forgotten first.
_LOGS_BYTES_MAX = 2 * 1024**3


@dataclass(slots=True)
class Entry:
    """One attempt of an allocation."""

    status: AllocationStatus
    run: RunAllocation | None = None  # None: it was stopped before the command to run it came
    runner: str = ""  # the name of the runner that has it
    process: ProcessId | None = None
    modelled_uj: int = 0  # its energy by the model; in its status is what it is charged
    stop_requested: bool = False
    # The agent stopped with its site while this ran: to be started again, through no fault of the task.
    interrupted: bool = False
    held_ms: int = 0  # when it was interrupted: how long it had been held since it first ran
    ended_here: bool = False  # somebody at the site wanted its end
    stored: bool = False  # the coordinator has its terminal state

    @property
    def key(self) -> AllocationKey:
        """What it is known by."""
        return AllocationKey(self.status.allocation_id, self.status.attempt)

    @property
    def is_live(self) -> bool:
        """Whether it has not ended yet."""
        return not is_terminal(self.status)


class Journal:
    """The entries of one agent. They survive the agent, not the machine's power: nothing is synced."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._entries_dir, self._logs_dir = state_dir / "allocations", state_dir / "logs"
        self._work_dir, self._outputs_dir = state_dir / "work", state_dir / "outputs"
        self._unsaved: dict[AllocationKey, Entry] = {}
        self._entries_dir.mkdir(parents=True, exist_ok=True)

    def load(self) -> list[Entry]:
        """All entries, oldest first. A file that cannot be read is set aside, with a warning."""
        entries = []
        for path in sorted(self._entries_dir.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
            try:
                entries.append(_from_json(json.loads(path.read_text())))
            except (ValueError, KeyError, TypeError, json_format.ParseError) as error:
                log.warning("journal entry %s is unreadable (%s); set aside as .bad", path, error)
                path.rename(path.with_suffix(".bad"))
        return entries

    def save(self, entry: Entry) -> None:
        """Replace the entry on disk. While the disk is full, it is kept in mind: see `save_again`."""
        path = self._path(entry.key)
        scratch = path.with_suffix(".new")
        try:
            scratch.write_text(json.dumps(_to_json(entry)))
            scratch.replace(path)
        except OSError as error:
            log.error("journal entry %s is not saved: %s; make room on the disk", entry.key, error.strerror)
            self._unsaved[entry.key] = entry
        else:
            self._unsaved.pop(entry.key, None)

    def save_again(self) -> None:
        """Try once more with what could not be saved."""
        for entry in list(self._unsaved.values()):
            self.save(entry)

    def bound_logs(self, ended: Iterable[Entry]) -> None:
        """Forget the logs of the tasks that ended first, until the rest is not too much."""
        left_bytes = _LOGS_BYTES_MAX
        for entry in sorted(ended, key=lambda entry: -entry.status.end_time.ToNanoseconds()):
            folder = self.log_dir(entry.key)
            left_bytes -= sum(path.stat().st_size for path in folder.glob("*"))
            if left_bytes < 0:
                shutil.rmtree(folder, ignore_errors=True)

    def log_dir(self, key: AllocationKey) -> Path:
        """Where the attempt's output is."""
        return self._logs_dir / _file_name(key)

    def work_dir(self, key: AllocationKey) -> Path:
        """The folder that the attempt has of its own, where it wants one."""
        return self._work_dir / _file_name(key)

    def outputs(self, key: AllocationKey) -> Path:
        """What the attempt has left, packed."""
        return self._outputs_dir / f"{_file_name(key)}.tar.gz"

    def prune(self, entries: Iterable[Entry]) -> list[AllocationKey]:
        """Forget the oldest of those that nobody needs but to read their logs; their keys."""
        kept_for_logs = [entry.key for entry in entries if entry.stored]
        forgotten = kept_for_logs[: max(0, len(kept_for_logs) - _KEPT_MAX)]
        for key in forgotten:
            self._path(key).unlink(missing_ok=True)
            shutil.rmtree(self.log_dir(key), ignore_errors=True)
            shutil.rmtree(self.work_dir(key), ignore_errors=True)
            self.outputs(key).unlink(missing_ok=True)
        return forgotten

    def _path(self, key: AllocationKey) -> Path:
        return self._entries_dir / f"{_file_name(key)}.json"


def _file_name(key: AllocationKey) -> str:
    return quote(f"a-{key}", safe="@")  # begins with a letter, so that no id becomes `..`


def _to_json(entry: Entry) -> dict[str, Any]:
    return {
        "status": json_format.MessageToDict(entry.status),
        "run": json_format.MessageToDict(_without_secrets(entry.run)) if entry.run else None,
        "runner": entry.runner,
        "process": list(entry.process) if entry.process else None,
        "modelled_uj": entry.modelled_uj,
        "stop_requested": entry.stop_requested,
        "interrupted": entry.interrupted,
        "held_ms": entry.held_ms,
        "ended_here": entry.ended_here,
        "stored": entry.stored,
    }


def _without_secrets(run: RunAllocation) -> RunAllocation:
    """The disk has none; the next welcome brings them again."""
    if not run.secrets:
        return run
    written = RunAllocation()
    written.CopyFrom(run)
    written.ClearField("secrets")
    return written


def _from_json(raw: dict[str, Any]) -> Entry:
    return Entry(
        status=json_format.ParseDict(raw["status"], AllocationStatus()),
        run=json_format.ParseDict(raw["run"], RunAllocation()) if raw["run"] else None,
        runner=raw["runner"],
        process=ProcessId(*raw["process"]) if raw["process"] else None,
        modelled_uj=raw["modelled_uj"],
        stop_requested=raw["stop_requested"],
        interrupted=raw["interrupted"],
        held_ms=raw.get("held_ms", 0),
        ended_here=raw.get("ended_here", False),
        stored=raw["stored"],
    )
