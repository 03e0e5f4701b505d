"""Processes with all that they have started."""

from __future__ import annotations

import asyncio

import psutil
from mumian_agent.runtime import process_tree

_FAMILY = "sleep 60 & sh -c 'sleep 60 & wait' & wait"


async def test_one_look_finds_the_same_descendants_as_asking_each_process_for_its_children() -> None:
    roots = [await asyncio.create_subprocess_exec("sh", "-c", _FAMILY, start_new_session=True) for _ in "ab"]
    processes = [psutil.Process(root.pid) for root in roots]
    try:
        async with asyncio.timeout(30):
            while any(len(each.children(recursive=True)) < 3 for each in processes):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        found = process_tree.with_descendants(processes)
        asked = [each for process in processes for each in (process, *process.children(recursive=True))]
        assert {process.pid for process in found} == {process.pid for process in asked}
        assert len(found) == len(asked) == 8
    finally:
        for each in process_tree.with_descendants(processes):
            each.kill()
        await asyncio.gather(*(root.wait() for root in roots))
