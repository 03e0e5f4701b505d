"""Many jobs that are submitted together: what is still to be sent, and what has come of each."""

from __future__ import annotations

import random
import time
import uuid
from collections import deque
from collections.abc import Sequence

from mumian.api.v1 import error_pb2
from mumian.api.v1.job_pb2 import Job, JobSpec
from mumian.api.v1.job_service_pb2 import CreateJobRequest, CreateJobsRequest, CreateJobsResult
from mumian.calls import Call, submit_many
from mumian.connection import REQUEST_BYTES_MAX
from mumian.errors import FieldViolation, MumianError, invalid_field, message_too_large

JOBS_PER_REQUEST = 1000
# Of a request: what its length and its own tag take of each submission.
_FRAME_BYTES = 8
# Nothing was done for these, and the same may be sent again.
_RETRIED = frozenset({error_pb2.ERROR_REASON_OVERLOADED, error_pb2.ERROR_REASON_STORE_UNAVAILABLE})
_PAUSE_S, _SPREAD = 0.1, 1.5


class Submissions:
    """Some jobs under way to a coordinator. Whoever drives this sends `next_call` until there is none.

    Args:
        timeout_s: what is refused for now is sent again until nothing was stored for so long.
    """

    def __init__(self, specs: Sequence[JobSpec], request_ids: Sequence[str] | None, timeout_s: float) -> None:
        ids = [uuid.uuid4().hex for _ in specs] if request_ids is None else list(request_ids)
        if len(ids) != len(specs):
            raise invalid_field("request_ids", f"({len(ids)}) must be one for each of {len(specs)} specs")
        self._requests = [
            CreateJobRequest(request_id=request_id, spec=spec)
            for request_id, spec in zip(ids, specs, strict=True)
        ]
        self._outcomes: list[Job | MumianError | None] = [None] * len(specs)
        self._waiting = deque(range(len(specs)))
        self._sent: list[int] = []
        self._timeout_s, self._progress_s = timeout_s, time.monotonic()
        # How long to wait before the next call.
        self.pause_s = 0.0

    def next_call(self) -> Call[Sequence[CreateJobsResult]] | None:
        """As many as go into one request; None: each has its outcome."""
        self._sent, left_bytes = [], REQUEST_BYTES_MAX
        while self._waiting and len(self._sent) < JOBS_PER_REQUEST:
            number = self._waiting[0]
            size_bytes = self._requests[number].ByteSize() + _FRAME_BYTES
            if size_bytes > REQUEST_BYTES_MAX:
                self._outcomes[number] = message_too_large(size_bytes, REQUEST_BYTES_MAX)
            elif size_bytes > left_bytes:
                break
            else:
                self._sent.append(number)
                left_bytes -= size_bytes
            self._waiting.popleft()
        if not self._sent:
            return None
        return submit_many(CreateJobsRequest(submissions=[self._requests[number] for number in self._sent]))

    def take(self, results: Sequence[CreateJobsResult]) -> None:
        """What the call has come to."""
        now_s, told_s = time.monotonic(), 0.0
        again: list[tuple[int, MumianError]] = []
        for number, result in zip(self._sent, results, strict=True):
            if result.HasField("job"):
                self._outcomes[number], self._progress_s = result.job, now_s
                continue
            refused = _error_of(result.refusal)
            if result.refusal.reason in _RETRIED:
                again.append((number, refused))
                told_s = max(told_s, refused.retry_after_s or _PAUSE_S)
            else:
                self._outcomes[number] = refused
        # Not before it was told, and not together with all others that were told the same.
        self.pause_s = told_s * random.uniform(1, _SPREAD)
        for number, refused in again:
            if now_s + self.pause_s - self._progress_s < self._timeout_s:
                self._waiting.append(number)
            else:
                self._outcomes[number] = refused

    def fail(self, error: MumianError) -> None:
        """The call was not answered: what is not stored yet will not be."""
        for number in [*self._sent, *self._waiting]:
            self._outcomes[number] = error
        self._waiting.clear()

    @property
    def so_far(self) -> Sequence[Job | MumianError | None]:
        """For each spec, in order, what is known by now; None: nothing."""
        return self._outcomes

    @property
    def outcomes(self) -> Sequence[Job | MumianError]:
        """For each spec, in order, its job or why there is none."""
        return [outcome for outcome in self._outcomes if outcome is not None]


def _error_of(refusal: error_pb2.Refusal) -> MumianError:
    return MumianError(
        error_pb2.ErrorReason.Name(refusal.reason).removeprefix("ERROR_REASON_"),
        refusal.message,
        [FieldViolation(each.field, each.description) for each in refusal.field_violations],
        retry_after_s=refusal.retry_after_ms / 1000 if refusal.HasField("retry_after_ms") else None,
    )
