"""Writes down what the engine is told, asked and answers, beside the event loop and within so much disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, cast

from mumian.storage.v1.decision_pb2 import DecisionAnswer, DecisionRecord

from mumian_orchestrator.adapters.disk import decision_files
from mumian_orchestrator.ports.clock import Clock

log = logging.getLogger(__name__)

# A file is full with so much of what may be kept; packed it is a small part of that.
_FILE_PART = 8
# With more files it would take minutes to read them all.
_FILES_MAX = 64
# Records that wait for a slow disk; with more of them, nothing is recorded until the next term.
_WAITING_MAX = 20_000

Condense = Callable[[Iterator[DecisionRecord]], bytes]


class DiskDecisionLog:
    """A folder of files, each of which begins with the whole state.

    Args:
        keep_bytes: so much disk is used at the most: the oldest file goes when a new one has no room.
        condense: the whole state after a file's records, as bytes of a Delta.
    """

    def __init__(self, folder: Path, keep_bytes: int, condense: Condense, clock: Clock) -> None:
        self._folder, self._file_bytes, self._condense = folder, keep_bytes // _FILE_PART, condense
        self._keep_bytes = keep_bytes
        self._clock = clock
        self._waiting: SimpleQueue[DecisionRecord | None] = SimpleQueue()
        self._number, self._hash = 0, b""
        self._is_recording = False
        self._path, self._file = Path(), cast("IO[bytes] | None", None)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it tells of all tenants
        self._find_end()
        self._writer = threading.Thread(target=self._write_all, name="decisions", daemon=True)
        self._writer.start()

    def started(self) -> None:
        """A new engine begins, which knows nothing."""
        self._is_recording = True
        self._waiting.put(self._record(whole=b""))

    def changed(self, delta: bytes) -> None:
        """The engine's state has changed."""
        self._add(delta=delta)

    def asked(self, request: bytes) -> int:
        """It is asked for a plan on its state as it is now; returns the question's number."""
        self._add(question=request)
        return self._number

    def answered(self, question_number: int, plan: bytes) -> None:
        """What it has answered."""
        self._add(answer=DecisionAnswer(question_number=question_number, plan=plan))

    def close(self) -> None:
        """Write what waits, and nothing more."""
        self._is_recording = False
        self._waiting.put(None)
        self._writer.join()

    def _add(self, **what: Any) -> None:
        if not self._is_recording:
            return
        if self._waiting.qsize() >= _WAITING_MAX:
            self._give_up(f"the disk of {self._folder} is too slow")
            return
        self._number += 1
        self._waiting.put(self._record(**what))

    def _record(self, **what: Any) -> DecisionRecord:
        now_unix_ms = self._clock.now().ToMilliseconds()
        return DecisionRecord(number=self._number, time_unix_ms=now_unix_ms, **what)

    def _give_up(self, reason: str) -> None:
        self._is_recording = False
        log.error("decisions are not recorded until this coordinator leads anew: %s", reason)

    def _find_end(self) -> None:
        """Go on behind what is there; what is damaged is left as it is, and shows."""
        last = decision_files.last_in(self._folder)
        if last is not None:
            self._number, self._hash = last.record.number, last.hash

    # Beside the event loop.

    def _write_all(self) -> None:
        while (record := self._waiting.get()) is not None:
            try:
                self._write(record)
            except Exception as error:
                self._close()
                self._give_up(f"{type(error).__name__}: {error}")
        self._close()

    def _write(self, record: DecisionRecord) -> None:
        if record.HasField("whole"):
            self._begin(record)
        elif self._file is not None:
            self._put(record, self._file)
            if self._file.tell() > self._file_bytes:
                self._file.flush()
                whole = self._condense(decision_files.content_of(self._path))
                self._begin(
                    DecisionRecord(number=record.number, time_unix_ms=record.time_unix_ms, whole=whole)
                )
        if self._file is not None and self._waiting.empty():
            self._file.flush()

    def _begin(self, whole: DecisionRecord) -> None:
        """A new file; the one before is packed, and the oldest thrown away."""
        was_open = self._file is not None
        self._close()
        if was_open:
            decision_files.pack(self._path)
        self._make_room()
        self._path = decision_files.next_path(self._folder)
        self._file = self._path.open("xb")
        self._put(whole, self._file, is_first=True)

    def _make_room(self) -> None:
        """For a new file, and for what that is packed into."""
        files = decision_files.files_in(self._folder)
        sizes = {path: path.stat().st_size for path in files}
        for path in files:
            is_full = sum(sizes.values()) > self._keep_bytes - 2 * self._file_bytes
            if not is_full and len(sizes) < _FILES_MAX:
                break
            path.unlink()
            del sizes[path]

    def _put(self, record: DecisionRecord, file: IO[bytes], *, is_first: bool = False) -> None:
        sealed = decision_files.seal(record, self._hash, is_first=is_first)
        self._hash = sealed.hash
        decision_files.write(sealed, file)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
