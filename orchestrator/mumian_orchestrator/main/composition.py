"""The coordinator's services, put together from ports: for a real coordinator and for a simulated one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mumian_orchestrator.domain.audit import AUDIT
from mumian_orchestrator.domain.holds import Holds
from mumian_orchestrator.domain.money.ledger import LEDGER
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.ports.bundle_store import BundleStore
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.engine import Engine
from mumian_orchestrator.ports.log_files import LogFiles
from mumian_orchestrator.ports.secret_box import SecretBox
from mumian_orchestrator.ports.store import TermStore
from mumian_orchestrator.ports.store_health import StoreHealth
from mumian_orchestrator.services.access.api_tokens import ApiTokens
from mumian_orchestrator.services.access.audit_log import AuditLog
from mumian_orchestrator.services.access.authentication import Authentication
from mumian_orchestrator.services.access.site_enrolment import SiteEnrolment
from mumian_orchestrator.services.admission import Admission
from mumian_orchestrator.services.agent_reports import AgentReports
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.archive import Archive
from mumian_orchestrator.services.arrangements import Arrangements
from mumian_orchestrator.services.brake import Brake
from mumian_orchestrator.services.bundles import Bundles
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.diagnosis.diagnosis import Diagnosis
from mumian_orchestrator.services.disconnections import Disconnections
from mumian_orchestrator.services.drift import Drift
from mumian_orchestrator.services.endpoints import Endpoints
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.handovers import Handovers
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.link_estimates import LinkEstimates
from mumian_orchestrator.services.money.corrections import Corrections
from mumian_orchestrator.services.money.documents import MoneyDocuments
from mumian_orchestrator.services.money.funding import Funding
from mumian_orchestrator.services.money.ledger_book import LedgerBook
from mumian_orchestrator.services.money.quotes import Quotes
from mumian_orchestrator.services.money.treasury import Treasury
from mumian_orchestrator.services.plan_applier import PlanApplier
from mumian_orchestrator.services.preemptions import Preemptions
from mumian_orchestrator.services.receipts import Receipts
from mumian_orchestrator.services.reconciler import Reconciler
from mumian_orchestrator.services.reoptimisation import Reoptimisation
from mumian_orchestrator.services.rollouts import Rollouts
from mumian_orchestrator.services.scheduler import Scheduler
from mumian_orchestrator.services.secrets import Secrets
from mumian_orchestrator.services.shares import Shares
from mumian_orchestrator.services.solver import Solver
from mumian_orchestrator.services.store.history import forget_old_history
from mumian_orchestrator.services.store.log_pages import LogPages
from mumian_orchestrator.services.what_if import WhatIf

if TYPE_CHECKING:
    from mumian_orchestrator.main.security import Security

_SILENCE_CHECK_S = 0.5
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in, and what is recorded of it."""

    audit: AuditLog
    tokens: ApiTokens
    sites: SiteEnrolment
    authentication: Authentication | None  # None: access control is off

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Take over what is stored."""
        self.audit.load(stored)
        self.tokens.load(stored)
        self.sites.load(stored)


@dataclass(frozen=True, slots=True)
class Services:
    """One leader's services for one term; everything in memory lives as long as the term."""

    table: JobTable
    fleet: Fleet
    sessions: AgentSessions
    reports: AgentReports
    admission: Admission
    endpoints: Endpoints
    bundles: Bundles
    reoptimisation: Reoptimisation
    what_if: WhatIf
    disconnections: Disconnections
    diagnosis: Diagnosis
    access: Access
    treasury: Treasury
    funding: Funding
    _book: LedgerBook
    _documents: MoneyDocuments
    _corrections: Corrections
    secrets: Secrets
    _store: TermStore
    _commit_log: CommitLog
    _preemptions: Preemptions
    applier: PlanApplier
    solver: Solver
    scheduler: Scheduler
    _reconciler: Reconciler
    _rollouts: Rollouts
    drift: Drift
    archive: Archive
    _estimates: LinkEstimates

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Take over what is stored, and finish what the previous leader had begun."""
        self.access.load(stored)
        self._book.load(stored)
        self._documents.load(stored)
        self._corrections.load(stored)
        self.secrets.load(stored)
        self.table.load(stored)
        self.fleet.load(stored, self._preemptions.load(stored))
        self._reconciler.resume()
        self._rollouts.resume()

    async def run(self, *, looks_for_moves: bool = True) -> None:
        """Do the work that no caller waits for, until cancelled.

        Args:
            looks_for_moves: services move by themselves; otherwise when the caller checks `drift` and
                `reoptimisation`.

        Raises:
            SupersededError: another leader writes; the term is over.
        """
        await first_of(
            self._commit_log.run(),
            self.scheduler.run(),
            *((self.reoptimisation.run(), self.drift.run()) if looks_for_moves else ()),
            self._watch_silence(),
            self.bundles.run(),
            self._rollouts.run(),
            self.archive.run(),
            self._estimates.run(),
            self.funding.run(self.scheduler.evaluate_waiting),
            self.treasury.run(),
            forget_old_history(self._store),
        )

    def commits_waiting(self) -> int:
        """Changes that are made and not durable yet."""
        return self._commit_log.waiting

    async def _watch_silence(self) -> None:
        while True:
            await asyncio.sleep(_SILENCE_CHECK_S)
            if silent := self.fleet.mark_silent():
                self.disconnections.lost_contact(silent)
                self._preemptions.lose_sites(silent)
                self.scheduler.evaluate_waiting()
            self.disconnections.tick()


def compose(
    config: Config,
    term_number: int,
    store: TermStore,
    engine: Engine,
    clock: Clock,
    health: StoreHealth | None = None,
    bundle_store: BundleStore | None = None,
    security: Security | None = None,
    secret_box: SecretBox | None = None,
    log_files: LogFiles | None = None,
) -> Services:
    """Everything that a leader serves with; it does nothing until `load` and `run`."""
    commit_log = CommitLog(store)
    book, documents = LedgerBook(clock), MoneyDocuments(commit_log, clock)
    table = JobTable(commit_log, clock, book)
    fleet = Fleet(config.zones, table, engine, commit_log, clock, config.unreachable_after_ms, documents)
    secrets = Secrets(secret_box, table, commit_log, clock)
    sessions = AgentSessions(term_number, fleet, table, secrets, clock, config.heartbeat_interval_ms)
    preemptions = Preemptions(table, engine, sessions, commit_log)
    funding = Funding(
        table, fleet, sessions, documents, book, config.carbon_kg_microcny, config.budget_window_ms
    )
    applier = PlanApplier(table, engine, sessions, preemptions, funding, clock)
    brake = Brake(config.brake, clock)
    solver = Solver(engine, fleet, config.solver_deadline_ms / 1000)
    shares = Shares(config.shares, table, fleet, engine)
    scheduler = Scheduler(table, solver, applier, preemptions, brake, shares, clock)
    receipts = Receipts(fleet, book, config.carbon_kg_microcny)
    disconnections = Disconnections(table, fleet, engine, sessions, scheduler, brake, receipts, clock)
    reconciler = Reconciler(table, engine, sessions, scheduler, preemptions, receipts)
    arrangements = Arrangements(table, fleet, preemptions, clock)
    handovers = Handovers(table, sessions, clock)
    bundle_max_bytes, bundles_max_bytes = config.bundle_max_mib * _MIB, config.bundles_max_mib * _MIB
    bundles = Bundles(bundle_store, table, clock, bundle_max_bytes, bundles_max_bytes)
    audit = AuditLog(commit_log, store, LogPages(store, AUDIT, log_files), clock)
    access = _access(config, security, audit, commit_log, clock)
    access.sites.on_revoked = sessions.close_site
    archive = Archive(table, store, commit_log, clock, config.archive)
    rollouts = Rollouts(table, solver, applier, scheduler, shares, clock)
    corrections = Corrections(fleet, book, commit_log)
    pages = LogPages(store, LEDGER, log_files)
    limits, interval_s = config.search_limits, config.reoptimize_interval_s
    holds = Holds()
    reoptimisation = Reoptimisation(
        table, engine, arrangements, applier, handovers, holds, clock, limits, interval_s
    )
    drift = Drift(table, fleet, engine, solver, applier, reoptimisation, holds, clock)
    estimates = LinkEstimates(fleet, scheduler, clock)
    admission = Admission(
        table,
        fleet,
        engine,
        scheduler,
        reconciler,
        sessions,
        disconnections,
        bundles,
        secrets,
        rollouts,
        drift,
        store,
        clock,
        shares,
        archive,
        Quotes(applier.propose, funding, documents, fleet),
    )
    scheduler.gives_way = lambda: admission.changes.waiting > 0
    return Services(
        table=table,
        fleet=fleet,
        sessions=sessions,
        reports=AgentReports(fleet, sessions, disconnections, reconciler, scheduler, estimates),
        admission=admission,
        endpoints=Endpoints(table, fleet),
        bundles=bundles,
        treasury=Treasury(book, documents, corrections, fleet, table, archive, scheduler, pages, commit_log),
        funding=funding,
        _book=book,
        _documents=documents,
        _corrections=corrections,
        disconnections=disconnections,
        reoptimisation=reoptimisation,
        what_if=WhatIf(fleet, table, engine, arrangements),
        diagnosis=Diagnosis(
            term_number,
            config.lease_ttl_s,
            store,
            health,
            commit_log,
            table,
            fleet,
            sessions,
            scheduler,
            disconnections,
            clock,
        ),
        access=access,
        secrets=secrets,
        _store=store,
        _commit_log=commit_log,
        _preemptions=preemptions,
        applier=applier,
        solver=solver,
        scheduler=scheduler,
        _reconciler=reconciler,
        _rollouts=rollouts,
        drift=drift,
        archive=archive,
        _estimates=estimates,
    )


def _access(
    config: Config, security: Security | None, audit: AuditLog, commit_log: CommitLog, clock: Clock
) -> Access:
    authority = security.authority if security else None
    tokens = ApiTokens(commit_log, clock)
    sites = SiteEnrolment(authority, config.agents_door, audit, commit_log, clock)
    if security is None:
        return Access(audit, tokens, sites, None)
    authentication = Authentication(security.authority, tokens, sites, security.provider, security.mapping)
    return Access(audit, tokens, sites, authentication)


async def first_of(*works: Any) -> None:
    """Wait for the first coroutine to end, end the others, and raise what it raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
