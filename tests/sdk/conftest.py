"""A coordinator to talk to, and command lines against it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mumian.cli import app

from tests.sdk.scripted_coordinator import ScriptedCoordinator


@pytest.fixture
def coordinator(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedCoordinator]:
    """A scripted coordinator; clients find it through the environment."""
    started = ScriptedCoordinator()
    monkeypatch.setenv("MUMIAN_COORDINATOR", started.address)
    monkeypatch.delenv("MUMIAN_TENANT", raising=False)
    yield started
    started.stop()


class Run:
    """One command line that has been run in this process."""

    def __init__(self, capsysbinary: pytest.CaptureFixture[bytes], *argv: str) -> None:
        self.code = app.run(argv)
        printed = capsysbinary.readouterr()
        self.out, self.err = printed.out.decode(), printed.err.decode()
        assert "Traceback" not in self.err
        assert "\x1b" not in self.out, "no colour where there is no terminal"
        assert self.code == 0 or self.err or "failed" in self.out

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def mumian(coordinator: ScriptedCoordinator, capsysbinary: pytest.CaptureFixture[bytes]) -> Any:
    """Runs a command line against the scripted coordinator."""
    return lambda *argv: Run(capsysbinary, *argv)


@pytest.fixture
def hello(tmp_path: Path) -> str:
    """A job file."""
    path = tmp_path / "hello.yaml"
    path.write_text("command: [echo, hello]\nlatency: {from: tianhe, budget: 20ms, client: 9.4ms}\n")
    return str(path)
