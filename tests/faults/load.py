"""Tenants at work during a round: small jobs, each submitted until it is acknowledged."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine, Sequence
from typing import Any

import mumian
from mumian.api.v1 import job_pb2
from mumian.errors import MumianError

from tests.oracle.history import History

_PATIENCE_S = 60.0
_EVERY_S = 0.1
_CPU_MILLI = 500


class Load:
    """The jobs of one round. Their names begin with the round's, and are their request ids, too."""

    def __init__(
        self, round_name: str, addresses: Sequence[str], history: History, chance: random.Random
    ) -> None:
        self._round_name, self._addresses, self._history = round_name, addresses, history
        self._random = chance
        self._numbers = itertools.count(1)
        self._client = mumian.AsyncClient(",".join(addresses), timeout_s=_PATIENCE_S)
        self._requests: set[asyncio.Task[Any]] = set()
        self._is_going = True

    async def run(self) -> None:
        """A job again and again, until `finish`."""
        while self._is_going:
            self._start(self.submit(self._client))
            await asyncio.sleep(self._random.uniform(0, 2 * _EVERY_S))

    async def finish(self) -> None:
        """No more; wait for all answers."""
        self._is_going = False
        await asyncio.gather(*self._requests)
        await self._client.close()

    def race(self, count: int) -> None:
        """So many jobs at once."""
        for _ in range(count):
            self._start(self.submit(self._client))

    def repeat(self, count: int) -> None:
        """So many jobs, the request of each sent to every coordinator at once, and then once more."""
        for _ in range(count):
            self._start(self._repeat())

    async def submit_at(self, address: str) -> None:
        """One job by one coordinator."""
        async with mumian.AsyncClient(address, timeout_s=_PATIENCE_S) as client:
            await self.submit(client)

    async def submit(self, client: mumian.AsyncClient, name: str = "", task_s: float | None = None) -> str:
        """Submit one job; its id."""
        name = name or f"{self._round_name}-{next(self._numbers)}"
        task_s = self._random.uniform(0.05, 0.4) if task_s is None else task_s
        group = mumian.task_group(command=["sleep", f"{task_s:.3f}"], cpu=_CPU_MILLI / 1000, memory="1MiB")
        job = await client.submit(mumian.job(name, group), request_id=name)
        self._history.add("acknowledged", name=name, job=job.id)
        self._start(self._see_end(job))
        return job.id

    async def probe(self) -> str:
        """One job that is started at once where all is well; its id."""
        return await self.submit(self._client)

    async def _repeat(self) -> None:
        name, task_s = f"{self._round_name}-{next(self._numbers)}", self._random.uniform(0.05, 0.4)
        for _ in range(2):
            async with asyncio.TaskGroup() as group:
                for address in self._addresses:
                    group.create_task(self._submit_same(address, name, task_s))

    async def _submit_same(self, address: str, name: str, task_s: float) -> None:
        # This coordinator first, then the others: it may be the one that is dead.
        others = [other for other in self._addresses if other != address]
        async with mumian.AsyncClient(",".join([address, *others]), timeout_s=_PATIENCE_S) as client:
            await self.submit(client, name, task_s)

    async def _see_end(self, job: job_pb2.Job) -> None:
        """Look on while it ends, so that the oracle knows how it was seen to."""
        try:
            ended = await self._client.wait(job.id, timeout_s=_PATIENCE_S)
        except (TimeoutError, MumianError):
            return  # the oracle asks again, and says so
        self._history.add("ended", job=job.id, state=ended.state)

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._requests.add(task)
