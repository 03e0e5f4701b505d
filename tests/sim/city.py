"""One simulated run: coordinators, sites, tenants and a store live through some faults, by a seed; then the
oracle judges it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from mumian.api.v1 import job_service_pb2 as pb
from mumian.api.v1.fleet_pb2 import Node
from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_pb2 import Job
from mumian_agent.agent import site_agent
from mumian_agent.runtime import contact, process_tree
from mumian_orchestrator.domain.job_state import TERMINAL_JOB_STATES
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.ports.key_value import KeyEvent
from mumian_orchestrator.ports.store import COMMIT_WRITES_MAX
from mumian_orchestrator.services import failpoints
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.failpoints import Failpoint

from tests.oracle.history import History
from tests.oracle.oracle import Oracle, Verdict
from tests.sim.coordinator import Coordinator
from tests.sim.faults import FAULTS, Heal
from tests.sim.mirror import Mirror
from tests.sim.processes import Simulation, current
from tests.sim.roads import CallRefusedError, Roads
from tests.sim.site import CPU_MILLI, Site
from tests.sim.store import RememberingCluster, Weather
from tests.sim.tenants import NAME, TENANTS, Tenant

_SITES = ("gz-a", "gz-b", "gz-c")
_COORDINATORS = (2, 2, 3)
# Few jobs never fill a transaction: small ones end where those of a busy city would, between what is done
# at once.
_WRITES_A_TRANSACTION = (1, COMMIT_WRITES_MAX)
_FAULTS_MAX = 5
_BEGIN_S, _WORK_UNTIL_S = 3.0, 45.0
# Contracts, brake and backoffs together take less, once all is well.
_ENDS_WITHIN_S, _SETTLES_S = 300.0, 8.0
_MEMORY = Path("/dev/shm")
# What a tenant may spend. With the tight one work waits for money, until the tenants go home.
_BUDGETS_MICROCNY = (None, 10**12, 30)
_BUDGET_WINDOW_MS = 10_000


@dataclass(slots=True)
class Outcome:
    """Of one seed."""

    seed: int
    verdict: Verdict
    faults: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    virtual_s: float = 0.0
    jobs: int = 0
    starts: int = 0
    terms: int = 0


class City:
    """Everything of one run."""

    def __init__(self, seed: int, folder: Path, history: History) -> None:
        def chance(what: str) -> random.Random:
            return random.Random(f"{seed} {what}")

        self.history, self._random = history, chance("faults")
        self.roads = Roads(chance("roads"), copy_context())
        self.cluster, self.weather = RememberingCluster(), Weather()
        self.config = Config(
            preempt=self._random.random() < 0.3,
            brake_release_after_ms=self._random.choice((20_000, 40_000)),
            # Longer than a tenant repeats a request without an answer, which has to find its job.
            archive_after_s=chance("archive").choice((40, 86_400)),
            budget_window_ms=_BUDGET_WINDOW_MS,
        )
        self.coordinators = [
            Coordinator(
                f"coordinator-{number}",
                self.config,
                self.cluster,
                self.weather,
                self.roads,
                lambda why: history.add("defect", why=why),
            )
            for number in range(self._random.choice(_COORDINATORS))
        ]
        self.sites = {
            site_id: Site(site_id, number, folder / site_id, self.coordinators, history, chance(site_id))
            for number, site_id in enumerate(_SITES)
        }
        self.tenants = [Tenant(name, self.coordinators, history, chance(name)) for name in TENANTS]
        money = chance("money")
        self.budgets_microcny = {name: money.choice(_BUDGETS_MICROCNY) for name in TENANTS}
        self.mirror = Mirror(self.cluster, self.config.key_prefix, self.weather, self.roads)
        self._armed: dict[Failpoint, int] = {}
        self._heals: dict[int, Heal] = {}

    # What faults use.

    def leader(self) -> Coordinator:
        """The one that leads; any, while none does."""
        leading = [each for each in self.coordinators if each.process.is_alive and each.services is not None]
        return leading[-1] if leading else self._random.choice(self.coordinators)

    def names(self) -> list[str]:
        """Of the coordinators."""
        return [coordinator.name for coordinator in self.coordinators]

    def arm(self, failpoint: Failpoint, others_first: int) -> None:
        """Whoever comes by this failpoint dies there, but so many live on first."""
        self._armed[failpoint] = others_first

    def reached(self, failpoint: Failpoint) -> None:
        """Somebody comes by."""
        if failpoint not in self._armed:
            return
        if self._armed[failpoint]:
            self._armed[failpoint] -= 1
            return
        del self._armed[failpoint]
        for coordinator in self.coordinators:
            if coordinator.process is current():
                self.history.add("died", coordinator=coordinator.name, at=failpoint)
                coordinator.kill()

    def restart_the_dead(self) -> None:
        """All coordinators that do not run."""
        self._armed.clear()
        for coordinator in self.coordinators:
            coordinator.start()

    def close_roads(self, begins: Sequence[str], ends: Sequence[str]) -> None:
        """Nothing goes there any more."""
        for begin in begins:
            for end in ends:
                self.roads.road(begin, end).is_closed = True
        for stream in [stream for each in self.coordinators for stream in each.streams]:
            if stream.there.is_closed or stream.back.is_closed:
                stream.closed()

    def open_roads(self, begins: Sequence[str], ends: Sequence[str]) -> None:
        """Both ways are open again."""
        for begin in begins:
            for end in ends:
                self.roads.road(begin, end).is_closed = self.roads.road(end, begin).is_closed = False
        for stream in [stream for each in self.coordinators for stream in each.streams]:
            stream.reports.opened()
            stream.commands.opened()

    # The run.

    async def live(self, faults: Sequence[str]) -> None:
        """All of it, until all is quiet."""
        for coordinator in self.coordinators:
            coordinator.start()
        for site in self.sites.values():
            site.start()
        await asyncio.sleep(_BEGIN_S)
        for tenant in self.tenants:
            budget = self.budgets_microcny[tenant.name]
            if budget is not None:
                await tenant.set_budget(budget)
        working = [asyncio.create_task(tenant.work(_WORK_UNTIL_S)) for tenant in self.tenants]
        striking = [asyncio.create_task(self._strike(number, fault)) for number, fault in enumerate(faults)]
        await asyncio.gather(*working)
        for task in striking:
            task.cancel()
        self._heal_all()
        for tenant in self.tenants:
            if self.budgets_microcny[tenant.name] is not None:
                await tenant.set_budget(10**12)
        with contextlib.suppress(TimeoutError, CallRefusedError):
            async with asyncio.timeout(_ENDS_WITHIN_S):
                await asyncio.gather(*(tenant.finish() for tenant in self.tenants))
        await asyncio.sleep(_SETTLES_S)

    async def _strike(self, number: int, fault: str) -> None:
        kind = FAULTS[fault]
        await asyncio.sleep(self._random.uniform(0, _WORK_UNTIL_S - _BEGIN_S))
        lasts_s = self._random.uniform(*kind.lasts_s)
        self.history.add("strikes", fault=fault, for_s=round(lasts_s, 1), leader=self.leader().name)
        self._heals[number] = kind.strike(self, self._random)
        await asyncio.sleep(lasts_s)
        self.history.add("is over", fault=fault)
        self._heals.pop(number)()

    def _heal_all(self) -> None:
        for heal in self._heals.values():
            heal()
        self._heals.clear()
        self.restart_the_dead()
        for site in self.sites.values():
            site.start()

    async def anew(self) -> Coordinator:
        """Only what is stored counts: all coordinators die, and a new one takes over."""
        for coordinator in self.coordinators:
            coordinator.kill()
        await asyncio.sleep(self.config.lease_ttl_s + 1)
        newest = self.coordinators[0]
        newest.start()
        await asyncio.sleep(_SETTLES_S)
        return newest


class SimulatedPlatform:
    """A city as the oracle sees it, by one of its coordinators."""

    def __init__(self, city: City, coordinator: Coordinator) -> None:
        self._city, self._coordinator = city, coordinator

    async def ended(self, job_id: str) -> Job:
        """The job once it has ended.

        Raises:
            LookupError: it is not there.
            TimeoutError: it has not ended.
        """
        job = next((job for job in await self.jobs() if job.id == job_id), None)
        if job is None:
            raise LookupError("it is not there")
        if job.state not in TERMINAL_JOB_STATES:
            raise TimeoutError(str(job))
        return job

    async def jobs(self) -> Sequence[Job]:
        """All jobs of all tenants."""
        return [job for tenant in TENANTS for job in await self._jobs_of(tenant)]

    async def events(self, job_id: str) -> Sequence[JobEvent]:
        """What the platform tells of a job, oldest first."""
        request = pb.ListJobEventsRequest(job_id=job_id, page_size=500)
        answer = await self._coordinator.call(
            "oracle", _owner(job_id), lambda jobs, context: jobs.ListJobEvents(request, context)
        )
        return list(answer.events)

    async def nodes(self) -> Sequence[Node]:
        """All nodes."""
        return [
            Node(
                id=f"{site_id}/n1", site_id=site_id, arch="x86_64", cpu_milli=CPU_MILLI, memory_mib=1_000_000
            )
            for site_id in self._city.sites
        ]

    async def seen_by_a_stranger(self, job_ids: Sequence[str]) -> Sequence[str]:
        """Those that the other tenant gets to see, or a third."""
        seen = []
        for tenant in (*TENANTS, "stranger"):
            others = [job_id for job_id in job_ids if _owner(job_id) != tenant]
            seen += [job.id for job in await self._jobs_of(tenant) if job.id in others]
            for job_id in others[:2]:
                with contextlib.suppress(CallRefusedError):
                    await self._get(tenant, job_id)
                    seen.append(job_id)
        return seen

    async def history_of(self, prefix: str) -> Sequence[KeyEvent]:
        """Everything that ever happened below a prefix."""
        return [event for event in self._city.cluster.remembered if event.key.startswith(prefix)]

    async def _get(self, tenant: str, job_id: str) -> None:
        request = pb.GetJobRequest(job_id=job_id)
        await self._coordinator.call("oracle", tenant, lambda jobs, context: jobs.GetJob(request, context))

    async def _jobs_of(self, tenant: str) -> Sequence[Job]:
        request = pb.ListJobsRequest(page_size=500, archived=True)
        answer = await self._coordinator.call(
            "oracle", tenant, lambda jobs, context: jobs.ListJobs(request, context)
        )
        return list(answer.jobs)


def simulate(seed: int, faults: Sequence[str] | None = None) -> Outcome:
    """Run one seed from its beginning to its verdict. Without faults, the seed decides which."""
    chance = random.Random(f"{seed} which")
    if faults is None:
        faults = [chance.choice(list(FAULTS)) for _ in range(chance.randint(1, _FAULTS_MAX))]
    outcome = Outcome(seed, Verdict(), list(faults))
    folder = tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None, prefix="mumian-sim-")
    with (
        folder,
        _same_every_time(seed),
        mock.patch.object(CommitLog, "batch_writes_max", chance.choice(_WRITES_A_TRANSACTION)),
        _defects() as defects,
        asyncio.Runner(loop_factory=Simulation) as runner,
    ):
        loop = runner.get_loop()
        assert isinstance(loop, Simulation)
        try:
            runner.run(_run(outcome, seed, Path(folder.name)))
        except Exception:
            outcome.verdict.broken.append(f"the simulation broke off:\n{traceback.format_exc()}")
        finally:
            outcome.virtual_s = loop.time()
            failpoints.listen(None)
            loop.release_all()
    outcome.verdict.broken += defects
    return outcome


async def _run(outcome: Outcome, seed: int, folder: Path) -> None:
    history = History(now_s=asyncio.get_running_loop().time)
    city = City(seed, folder, history)
    failpoints.listen(city.reached)
    try:
        await city.live(outcome.faults)
        verdict = outcome.verdict
        verdict.broken += [f"the mirror has {key} wrong" for key in await city.mirror.lasting_differences()]
        for site in city.sites.values():
            verdict.lost += [f"{each}: its end was never confirmed to {site.id}" for each in site.untold()]
        verdict.broken += [str(event) for event in history.of("defect")]
        verdict.broken += [str(event) for event in history.of("refused") if "taken" in event["why"]]
        judged = await Oracle(
            history, SimulatedPlatform(city, await city.anew()), city.config.key_prefix
        ).judge(NAME)
        for mine, theirs in (
            (verdict.lost, judged.lost),
            (verdict.twice, judged.twice),
            (verdict.broken, judged.broken),
        ):
            mine += theirs
    finally:
        outcome.history = history.lines()
        outcome.jobs = len({event["job"] for event in history.of("acknowledged")})
        outcome.starts = len(history.of("started"))
        mark = f"{city.config.key_prefix}commit"
        marks = [event.value for event in city.cluster.remembered if event.key == mark and event.value]
        outcome.terms = len({value.split(b"/")[0] for value in marks})


@contextlib.contextmanager
def _same_every_time(seed: int) -> Iterator[None]:
    """What would come from this machine comes from the seed and the virtual clock."""
    chance = random.Random(f"{seed} ids")

    def now_ns() -> int:
        return int(asyncio.get_running_loop().time() * 1e9)

    with (
        mock.patch.object(secrets, "token_hex", lambda count: chance.randbytes(count).hex()),
        mock.patch.object(contact, "now_ns", now_ns),
        mock.patch.object(site_agent, "now_ns", now_ns),
        mock.patch.object(process_tree, "sweep", lambda *task: None),
    ):
        yield


@contextlib.contextmanager
def _defects() -> Iterator[list[str]]:
    """What the programs log of exceptions that they did not expect."""
    defects: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[0] is not None:
                defects.append(
                    f"defect: {record.getMessage()}\n{''.join(traceback.format_exception(*record.exc_info))}"
                )

    handler, loggers = (
        Handler(),
        [logging.getLogger(name) for name in ("mumian_orchestrator", "mumian_agent")],
    )
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield defects
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def _owner(job_id: str) -> str:
    return job_id.split("-")[1]
