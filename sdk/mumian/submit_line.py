"""Submits that a program has under way together share requests: these cost both sides more than a job."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mumian.api.v1.job_pb2 import Job, JobSpec
from mumian.calls import Call, submit
from mumian.errors import MumianError
from mumian.submissions import Submissions

# Requests under way: who comes while there are fewer goes alone and at once. And jobs that share one.
_AT_ONCE, _TOGETHER_MAX = 2, 64
# After these nobody has said anything about the job: who waits behind it would hear the same.
_NOBODY_ANSWERED = frozenset({"CLIENT_UNREACHABLE", "NOT_LEADER"})
_AS_LONG = 0.9


@dataclass(frozen=True, slots=True)
class _Waiting:
    spec: JobSpec
    request_id: str
    came_s: float
    outcome: asyncio.Future[Job]


class SubmitLine:
    """Takes jobs one by one, and sends those together that come while others are under way.

    Args:
        send: one request, with all its tries.
        timeout_s: of a request.
    """

    def __init__(self, send: Callable[[Call[Any]], Awaitable[Any]], timeout_s: float) -> None:
        self._send, self._timeout_s = send, timeout_s
        self._waiting: deque[_Waiting] = deque()
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, spec: JobSpec, request_id: str | None) -> Job:
        """Store one job.

        Raises:
            MumianError: it is not stored, or nobody knows whether it is.
        """
        if self._under_way < _AT_ONCE:
            return await self._alone(submit(spec, request_id))
        kept = JobSpec()
        kept.CopyFrom(spec)  # the caller may make the next of it
        outcome: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(kept, request_id or uuid.uuid4().hex, time.monotonic(), outcome))
        return await outcome

    async def _alone(self, call: Call[Job]) -> Job:
        self._under_way += 1
        begun_s = time.monotonic()
        try:
            return await self._send(call)  # type: ignore[no-any-return]
        except MumianError as error:
            self._give_up(error, begun_s)
            raise
        finally:
            self._go_on()

    def _go_on(self) -> None:
        """A request has ended: the next takes along as many as wait."""
        self._under_way -= 1
        while self._waiting and self._under_way < _AT_ONCE:
            count = min(_TOGETHER_MAX, len(self._waiting))
            taken = [self._waiting.popleft() for _ in range(count)]
            if together := [each for each in taken if not each.outcome.done()]:  # the others went away
                self._under_way += 1
                task = asyncio.create_task(self._together(together))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _together(self, jobs: Sequence[_Waiting]) -> None:
        begun_s = time.monotonic()
        try:
            specs, request_ids = [each.spec for each in jobs], [each.request_id for each in jobs]
            submissions = Submissions(specs, request_ids, self._timeout_s)
            while (call := submissions.next_call()) is not None:
                try:
                    submissions.take(await self._send(call))
                except MumianError as error:
                    submissions.fail(error)
                    self._give_up(error, begun_s)
                for each, outcome in zip(jobs, submissions.so_far, strict=True):
                    _tell(each, outcome)
                await asyncio.sleep(submissions.pause_s)
            for each, outcome in zip(jobs, submissions.so_far, strict=True):
                _tell(each, outcome)
        except Exception as error:
            for each in jobs:
                _tell(each, error)  # a defect, or the client was closed
        finally:
            for each in jobs:
                each.outcome.cancel()  # of those that know nothing yet: the loop ends
            self._go_on()

    def _give_up(self, error: MumianError, begun_s: float) -> None:
        """Tell those who have waited about as long as a request that nobody has answered."""
        if error.reason not in _NOBODY_ANSWERED:
            return
        now_s = time.monotonic()
        while self._waiting and now_s - self._waiting[0].came_s >= _AS_LONG * (now_s - begun_s):
            _tell(self._waiting.popleft(), error)


def _tell(waiting: _Waiting, outcome: Job | Exception | None) -> None:
    if outcome is None or waiting.outcome.done():
        return
    if isinstance(outcome, Exception):
        waiting.outcome.set_exception(outcome)
    else:
        waiting.outcome.set_result(outcome)
