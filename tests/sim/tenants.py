"""The tenants of a simulation: they submit until they are acknowledged, cancel some, and see how all ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Sequence
from typing import Any

import grpc
from mumian.api.v1 import error_pb2, job_pb2, money_service_pb2
from mumian.api.v1 import job_service_pb2 as pb
from mumian.api.v1.job_pb2 import Job, JobSpec, OnDisconnect
from mumian_orchestrator.domain.job_state import TERMINAL_JOB_STATES

from tests.oracle.history import History
from tests.sim.coordinator import Coordinator
from tests.sim.roads import CallRefusedError, UnreachableError

TENANTS = ("acme", "bolt")
NAME = "n"  # what the names of all jobs begin with
_BETWEEN_S = 5.0  # at most
_SERVICE_S = (3.0, 40.0)
_RETRY_S = (0.05, 0.8)
_LOOK_EVERY_S = (0.5, 2.0)
_REFUSALS_RETRIED = {
    error_pb2.ERROR_REASON_OVERLOADED,
    error_pb2.ERROR_REASON_STORE_UNAVAILABLE,
    error_pb2.ERROR_REASON_STORE_FULL,
}
_RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}


class Tenant:
    """One of them. Every request is repeated, with the same request id, until it is answered."""

    def __init__(
        self, name: str, coordinators: Sequence[Coordinator], history: History, chance: random.Random
    ) -> None:
        self.name, self._coordinators, self._history, self._random = name, list(coordinators), history, chance
        self._numbers = itertools.count(1)
        self._jobs: list[asyncio.Task[None]] = []
        self.repeats = 0.0  # the share of calls that arrive twice
        self._finishing = asyncio.Event()

    async def work(self, until_s: float) -> None:
        """Submit job after job."""
        loop = asyncio.get_running_loop()
        while loop.time() < until_s:
            self._jobs.append(asyncio.create_task(self._see_through()))
            await asyncio.sleep(self._random.uniform(0, _BETWEEN_S))

    async def finish(self) -> None:
        """Stop the services; wait for all jobs."""
        self._finishing.set()
        await asyncio.gather(*self._jobs)

    async def _see_through(self) -> None:
        """One job, from its submission to its end."""
        chance = self._random
        name = f"{NAME}-{self.name}-{next(self._numbers)}"
        spec = _spec(name, chance)
        request = pb.CreateJobRequest(request_id=name, spec=spec)
        twice = asyncio.create_task(self._create(request)) if chance.random() < 0.1 else None
        job_id = await self._create(request)
        if twice is not None:
            await twice
        if spec.kind == job_pb2.JOB_KIND_SERVICE:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._finishing.wait(), chance.uniform(*_SERVICE_S))
            await self._cancel(job_id)
        elif chance.random() < 0.15:
            await asyncio.sleep(chance.choice((0.0, chance.uniform(0, 10))))
            await self._cancel(job_id)
        await self._see_end(job_id)

    async def _create(self, request: pb.CreateJobRequest) -> str:
        if self._random.random() < 0.3:  # with itself: of both at most one job may come
            many = pb.CreateJobsRequest(submissions=[request, request])
            job = await self._create_many(many)
        else:
            job = (await self._ask(lambda jobs, context: jobs.CreateJob(request, context))).job
        self._history.add("acknowledged", name=request.spec.name, job=job.id)
        return str(job.id)

    async def _create_many(self, request: pb.CreateJobsRequest) -> Job:
        """The job that comes of several submissions of one request id."""
        while True:
            answer = await self._ask(lambda jobs, context: jobs.CreateJobs(request, context))
            made: list[Job] = [result.job for result in answer.results if result.HasField("job")]
            if len(made) == len(answer.results):
                first, *others = made
                for other in others:
                    if other.id != first.id:
                        self._history.add("defect", jobs_of_one_request=f"{first.id}, {other.id}")
                return first
            reasons = {result.refusal.reason for result in answer.results if result.HasField("refusal")}
            if not reasons <= _REFUSALS_RETRIED:
                self._history.add("defect", what_was_answered=str(answer), tenant=self.name)
                raise AssertionError(answer)
            await asyncio.sleep(self._random.uniform(*_RETRY_S))

    async def _cancel(self, job_id: str) -> None:
        self._history.add("cancel", job=job_id)
        request = pb.CancelJobRequest(job_id=job_id)
        await self._ask(lambda jobs, context: jobs.CancelJob(request, context))

    async def _see_end(self, job_id: str) -> None:
        while True:
            job: Job = await self.get(job_id)
            if job.state in TERMINAL_JOB_STATES:
                self._history.add("ended", job=job_id, state=job.state)
                return
            await asyncio.sleep(self._random.uniform(*_LOOK_EVERY_S))

    async def get(self, job_id: str) -> Job:
        """One job."""
        request = pb.GetJobRequest(job_id=job_id)
        answer = await self._ask(lambda jobs, context: jobs.GetJob(request, context))
        return answer.job  # type: ignore[no-any-return]

    async def set_budget(self, month_microcny: int) -> None:
        """What it may spend in a month, by whoever runs the platform."""
        request = money_service_pb2.SetBudgetRequest(tenant_id=self.name, month_microcny=month_microcny)
        await self._ask(lambda money, context: money.SetBudget(request, context), "money")

    async def _ask(self, work: Any, door: str = "jobs") -> Any:
        """Ask one coordinator after the other until there is an answer."""
        while True:
            leader, times = self._coordinators[0], 2 if self._random.random() < self.repeats else 1
            try:
                return await leader.call(self.name, self.name, work, times=times, door=door)
            except UnreachableError:
                pass
            except CallRefusedError as refused:
                if refused.code not in _RETRIED:
                    self._history.add("defect", what_was_answered=str(refused), tenant=self.name)
                    raise
            self._coordinators.append(self._coordinators.pop(0))
            await asyncio.sleep(self._random.uniform(*_RETRY_S))


def _spec(name: str, chance: random.Random) -> JobSpec:
    """A job of any kind with any contract. A service runs until it is cancelled."""
    kind = chance.choice((job_pb2.JOB_KIND_BATCH, job_pb2.JOB_KIND_BATCH, *job_pb2.JobKind.values()[1:]))
    is_service = kind == job_pb2.JOB_KIND_SERVICE
    seconds = 100_000 if is_service else chance.choice((0.2, chance.uniform(0.5, 4), chance.uniform(4, 25)))
    fails = ["fail"] if chance.random() < 0.05 else []
    command = job_pb2.Command(argv=["sleep", f"{seconds:.2f}", *fails])
    count = chance.choice((1, 1, 2, 3)) if kind != job_pb2.JOB_KIND_GANG else 2
    group = job_pb2.TaskGroup(name="main", count=count, command=command, max_restarts=chance.choice((0, 3)))
    group.resources.cpu_milli = chance.choice((250, 500, 1000, 1500))
    contract = OnDisconnect(
        lost_after_s=chance.choice((12, 20, 30)),
        stop_after_s=chance.choice((0, 0, 15, 25)),
        replace=chance.random() < 0.8,
        reconcile=chance.choice(job_pb2.Reconcile.values()),
    )
    return JobSpec(
        name=name,
        kind=kind,
        task_groups=[group],
        at_most_once=chance.random() < 0.4,
        on_disconnect=contract,
        priority=chance.choice((0, 0, 5)),
    )
