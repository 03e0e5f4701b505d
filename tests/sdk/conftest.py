"""A coordinator to talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sdk.scripted_coordinator import ScriptedCoordinator


@pytest.fixture
def coordinator(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedCoordinator]:
    """A scripted coordinator; clients find it through the environment."""
    started = ScriptedCoordinator()
    monkeypatch.setenv("MUMIAN_COORDINATOR", started.address)
    monkeypatch.delenv("MUMIAN_TENANT", raising=False)
    yield started
    started.stop()
