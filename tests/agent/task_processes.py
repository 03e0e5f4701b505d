"""The processes of tasks, as /proc shows them."""

from __future__ import annotations

import asyncio

import psutil
from mumian_agent.runtime import process_tree

from tests.processes import the_process


async def process_of(allocation_id: str, name: str = "") -> psutil.Process:
    """The one process of the first attempt of an allocation; or its one of that name.

    While a process becomes another program it has no environment to know it by, so one look is not enough.
    """
    async with asyncio.timeout(60):
        while True:
            if found := the_process(process_tree.members(allocation_id, 1), name):
                return found
            await asyncio.sleep(0.02)
