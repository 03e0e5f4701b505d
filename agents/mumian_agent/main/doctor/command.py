"""The command, and in what order it looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from mumian.api.v1.ops_service_pb2 import Finding

from mumian_agent.domain.config import AgentConfig
from mumian_agent.main.doctor import coordinators, devices, machine, site


async def findings(config: AgentConfig) -> AsyncIterator[Finding]:
    """Everything that can be looked at, one after the other.

    What an agent that runs has is not tried again: it has its ports and its Ray.
    """
    agent = await asyncio.to_thread(site.running_agent, config)
    for finding in machine.look(config):
        yield finding
    for finding in coordinators.certificates(config):
        yield finding
    async for finding in coordinators.look(config, agent_runs=agent is not None):
        yield finding
    for finding in await asyncio.to_thread(lambda: list(devices.look(config))):
        yield finding
    if agent is not None:
        yield agent
        return
    for finding in site.ports(config):
        yield finding
    async for finding in site.ray():
        yield finding
