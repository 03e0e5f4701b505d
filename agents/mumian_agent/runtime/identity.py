"""What tells this agent from every other, and this start of it from every earlier one."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path


class StateInUseError(Exception):
    """Another agent lives on the same state."""


class Identity:
    """The agent's epoch and the highest leader term that it has obeyed, on disk."""

    def __init__(self, state_dir: Path) -> None:
        """Take the state folder and begin a new epoch.

        Raises:
            StateInUseError: another agent has it.
        """
        state_dir.mkdir(parents=True, exist_ok=True)
        self._lock = (state_dir / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateInUseError(
                f"state_dir ({state_dir}) is in use by another agent; stop it or choose another folder"
            ) from None
        self._file = state_dir / "identity.json"
        known = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.agent_epoch: int = known.get("agent_epoch", 0) + 1
        self.leader_term: int = known.get("leader_term", 0)
        self._save()

    def obeys(self, leader_term: int) -> bool:
        """Whether a command with this term is to be obeyed: no newer leader has been heard."""
        if leader_term > self.leader_term:
            self.leader_term = leader_term
            self._save()
        return leader_term == self.leader_term

    def release(self) -> None:
        """Let another agent have the state, as the end of this process would."""
        self._lock.close()

    def _save(self) -> None:
        scratch = self._file.with_suffix(".new")
        scratch.write_text(json.dumps({"agent_epoch": self.agent_epoch, "leader_term": self.leader_term}))
        scratch.replace(self._file)
