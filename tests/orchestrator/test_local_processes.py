"""What is started in the background is ended whole, also where the one that started the rest has died."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest
from mumian_orchestrator.main.local_processes import LocalProcesses

# One child keeps the environment; the other has lost it, as Ray's agents do that write their title over it.
_PARENT = "sleep 300 & echo $!; env -i TITLE=other sleep 300 & echo $!; echo ready; wait"


def test_what_outlives_its_parent_is_ended_even_without_the_mark(tmp_path: Path) -> None:
    processes = LocalProcesses(tmp_path)
    processes.start("parent", ["sh", "-c", _PARENT], lambda text: "ready" in text, 30)
    children = [psutil.Process(int(line)) for line in processes.log("parent").read_text().split()[:2]]
    parent = children[0].parent()
    assert parent is not None
    parent.send_signal(signal.SIGKILL)
    parent.wait(30)
    assert processes.stop_all() == []
    assert [child for child in children if _is_alive(child)] == []


def test_what_is_in_no_session_of_its_own_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that bears the mark may be in our session: we, and what else is there, do not end with it."""
    monkeypatch.setenv("MUMIAN_STARTED_IN", str(tmp_path))
    bearer = psutil.Popen(["sleep", "300"])
    monkeypatch.delenv("MUMIAN_STARTED_IN")
    other = psutil.Popen(["sleep", "300"])
    try:
        LocalProcesses(tmp_path).stop_all()
        assert bearer.wait(30) == -signal.SIGKILL
        assert _is_alive(other)
        assert os.getsid(other.pid) == os.getsid(0)
    finally:
        for process in (bearer, other):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
            process.wait(30)


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
