"""How commands reach one connected agent."""

from __future__ import annotations

from typing import Protocol

from mumian.agent.v1.agent_pb2 import CoordinatorCommand


class AgentLink(Protocol):
    """One open stream to one agent."""

    @property
    def commands_waiting(self) -> int:
        """How many have been queued and not gone out yet."""

    def send(self, command: CoordinatorCommand) -> None:
        """Queue a command. A link that is too slow to take it is closed: the agent comes back in step."""

    def close(self, reason: str) -> None:
        """End the stream; the agent may connect again."""
