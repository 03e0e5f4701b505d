"""The agent's stream: it ends when it is told to, whatever it is doing at that moment."""

from __future__ import annotations

import asyncio

from mumian.agent.v1.agent_pb2 import AgentReport, CoordinatorCommand, Hello
from mumian_agent.adapters.grpc.coordinator_stream import CoordinatorStream, Outbox

from tests.processes import free_port


class Quitter:
    """Who the stream is for; ends it at the moment when a broken one is being cleared up."""

    running: asyncio.Task[None]
    has_quit = False

    def hello(self) -> AgentReport:
        return AgentReport(hello=Hello())

    def obey(self, command: CoordinatorCommand) -> None:
        raise AssertionError("nobody is there to command anything")

    def disconnected(self) -> None:
        if not self.has_quit:  # once: the next time it would be caught at another place
            self.has_quit = True
            self.running.cancel()


async def test_it_ends_although_it_is_told_to_while_a_broken_stream_is_cleared_up() -> None:
    stream, quitter = CoordinatorStream(f"127.0.0.1:{free_port()}", 1, Outbox()), Quitter()
    quitter.running = asyncio.create_task(stream.run(quitter))
    ended, _ = await asyncio.wait({quitter.running}, timeout=10)
    assert ended
    assert quitter.running.cancelled()
