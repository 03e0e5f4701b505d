"""A platform of real processes as the oracle sees it: by the SDK, and by its etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

import mumian
from mumian.api.v1.fleet_pb2 import Node
from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_pb2 import Job
from mumian.errors import MumianError
from mumian_orchestrator.ports.key_value import KeyEvent, KeyValue, NoAnswerError

_ENDS_WITHIN_S = 60.0


class RealPlatform:
    """Asked by the tenant of the load; the stranger owns nothing."""

    def __init__(self, client: mumian.AsyncClient, stranger: mumian.AsyncClient, kv: KeyValue) -> None:
        self._client, self._stranger, self._kv = client, stranger, kv

    async def ended(self, job_id: str) -> Job:
        """The job once it has ended.

        Raises:
            LookupError: it is not there.
            TimeoutError: it does not end.
        """
        try:
            return await self._client.wait(job_id, timeout_s=_ENDS_WITHIN_S)
        except MumianError as error:
            raise LookupError(str(error)) from error
        except TimeoutError:
            raise TimeoutError(str(await self._client.get(job_id))) from None

    async def jobs(self) -> Sequence[Job]:
        """All jobs."""
        return [job async for job in self._client.list()]

    async def events(self, job_id: str) -> Sequence[JobEvent]:
        """What the platform tells of a job, oldest first."""
        return [event async for event in self._client.events(job_id)]

    async def nodes(self) -> Sequence[Node]:
        """All nodes."""
        return [node async for node in self._client.nodes()]

    async def seen_by_a_stranger(self, job_ids: Sequence[str]) -> Sequence[str]:
        """Those of the jobs that the stranger sees in a list, or of one of them by its name."""
        seen = {job.id async for job in self._stranger.list()} & set(job_ids)
        for job_id in job_ids[:1]:
            with suppress(MumianError):
                seen.add((await self._stranger.get(job_id)).id)
        return sorted(seen)

    async def history_of(self, prefix: str) -> Sequence[KeyEvent]:
        """Everything that ever happened below a prefix, by etcd's history."""
        while True:
            try:
                entries = (await self._kv.list(prefix)).entries
                newest = max((entry.mod_revision for entry in entries), default=0)
                found: list[KeyEvent] = []
                watched: AsyncGenerator[Sequence[KeyEvent], None] = self._kv.watch(prefix, 1)
                async with asyncio.timeout(10), aclosing(watched) as answers:
                    async for events in answers:
                        found += events
                        if found[-1].revision >= newest:
                            return found
            except (NoAnswerError, TimeoutError):
                await asyncio.sleep(0.1)
            if not newest:
                return []
