"""Budgets, published documents, accounts and corrections, without their transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from mumian.api.v1.money_pb2 import Budget, Fund, MoneyDocument, Statement, StatementLine
from mumian.storage.v1.ledger_pb2 import LedgerEntry, LedgerPage

from mumian_orchestrator.domain.errors import FieldFault, invalid
from mumian_orchestrator.domain.money.accounts import add_to_total, lines_of
from mumian_orchestrator.domain.money.city_report import CityReport
from mumian_orchestrator.domain.money.ledger import budget_of
from mumian_orchestrator.domain.names import is_name
from mumian_orchestrator.domain.pages import key_of, token_of
from mumian_orchestrator.domain.periods import is_period, month_of, year_of
from mumian_orchestrator.services.archive import Archive
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.money.corrections import Corrections
from mumian_orchestrator.services.money.documents import MoneyDocuments
from mumian_orchestrator.services.money.ledger_book import BudgetLimits, LedgerBook
from mumian_orchestrator.services.scheduler import Scheduler
from mumian_orchestrator.services.store.log_pages import LogPages

_HOUR_S = 3600
BUDGET_MICROCNY_MAX = 10**18

# Lines that one answer has, and a few more: pages of the ledger are not cut.
LINES_MAX = 2000


class Treasury:
    """What people ask and change about money."""

    def __init__(
        self,
        book: LedgerBook,
        documents: MoneyDocuments,
        corrections: Corrections,
        fleet: Fleet,
        table: JobTable,
        archive: Archive,
        scheduler: Scheduler,
        pages: LogPages,
        commit_log: CommitLog,
    ) -> None:
        self._book, self._documents, self._corrections = book, documents, corrections
        self._fleet, self._scheduler = fleet, scheduler
        self._table, self._archive = table, archive
        self._pages, self._log = pages, commit_log

    async def run(self) -> None:
        """Let price lists hold from hour to hour, until cancelled."""
        while True:
            now_s = self._book.now_ms() / 1000
            await asyncio.sleep(_HOUR_S - now_s % _HOUR_S)
            self._reprice()

    def _reprice(self) -> None:
        self._fleet.set_offers()
        self._scheduler.evaluate_waiting()

    # Budgets.

    def budget(self, tenant_id: str) -> Budget:
        """A tenant's budget and what has become of it."""
        limits = self._book.limits(tenant_id) or BudgetLimits()
        made = Budget(tenant_id=tenant_id, funds=self._book.funds(budget_of(tenant_id)))
        if limits.month is not None:
            made.month_microcny = limits.month
        if limits.year is not None:
            made.year_microcny = limits.year
        return made

    async def set_budget(
        self, tenant_id: str, month_microcny: int | None, year_microcny: int | None
    ) -> Budget:
        """Limit a tenant; None leaves a limit as it is. Below what is spent and reserved already, it lets
        nothing new be reserved: a refusal would have to be raced against what runs and renews.

        Raises:
            RequestRefusedError: INVALID_FIELD; nothing has changed.
        """
        faults = _faults_of(tenant_id)
        asked = {"month_microcny": month_microcny, "year_microcny": year_microcny}
        if month_microcny is None and year_microcny is None:
            faults.append(FieldFault("month_microcny", "or year_microcny must be given"))
        for field, microcny in asked.items():
            if microcny is not None and microcny > BUDGET_MICROCNY_MAX:
                faults.append(FieldFault(field, f"({microcny}) must be at most {BUDGET_MICROCNY_MAX}"))
        if faults:
            raise invalid(faults)
        before = self._book.limits(tenant_id) or BudgetLimits()
        limits = BudgetLimits(
            before.month if month_microcny is None else month_microcny,
            before.year if year_microcny is None else year_microcny,
        )
        return await self._set_limits(tenant_id, limits)

    async def remove_budget(self, tenant_id: str, *, month: bool, year: bool) -> Budget:
        """Take limits away, for what runs as well.

        Raises:
            RequestRefusedError: INVALID_FIELD; nothing has changed.
        """
        if faults := _faults_of(tenant_id):
            raise invalid(faults)
        before = self._book.limits(tenant_id)
        if before is None:
            return self.budget(tenant_id)
        kept = BudgetLimits(None if month else before.month, None if year else before.year)
        return await self._set_limits(tenant_id, kept)

    async def _set_limits(self, tenant_id: str, limits: BudgetLimits) -> Budget:
        await self._log.append(self._book.set_limits(tenant_id, limits))
        self._scheduler.evaluate_waiting()
        return self.budget(tenant_id)

    def voucher_funds(self) -> list[Fund]:
        """All pools of vouchers, and the enterprises' shares of them."""
        return self._book.funds("voucher/")

    # Documents.

    def documents(self) -> list[MoneyDocument]:
        """What is published, in order of name."""
        return self._documents.all()

    async def apply(self, text: str) -> MoneyDocument:
        """Publish a document.

        Raises:
            RequestRefusedError: INVALID_FIELD.
        """
        document, durable = self._documents.apply(text)
        self._reprice()
        await durable
        return document

    # Accounts.

    async def tenant_statement(self, tenant_id: str, period: str, page_token: str = "") -> Statement:
        """A tenant's account of a month or a year ("": this month); with a token, only its further lines."""
        period = self._period(period)
        made = await self._statement(tenant_id, period, page_token, lambda line: line.tenant_id == tenant_id)
        made.funds.extend(fund for fund in self._book.funds(budget_of(tenant_id)) if fund.period == period)
        return made

    async def operator_statement(self, operator_id: str, period: str, page_token: str = "") -> Statement:
        """An operator's account, likewise. Its tenants' names are not for it."""
        period = self._period(period)
        made = await self._statement(
            operator_id, period, page_token, lambda line: line.operator_id == operator_id
        )
        for line in made.lines:
            line.ClearField("tenant_id")
        return made

    async def city_report(self, year: str) -> CityReport:
        """The report on a year ("": this year)."""
        if year and not (len(year) == 4 and is_period(year)):
            raise invalid([FieldFault("year", f"({year!r}) must be a year from 2000 on, such as 2026")])
        period = year or year_of(self._period(""))
        entries: list[LedgerEntry] = []
        async for _, some in self._entries(period):
            entries += some
        return await asyncio.to_thread(
            CityReport,
            period,
            self._book.now_ms(),
            entries,
            self._fleet.sites(),
            self._fleet.nodes(),
            self._documents.registry,
            self._documents.pue,
        )

    async def correct(
        self,
        tenant_id: str,
        allocation_id: str,
        microcny: int,
        reason: str,
        request_id: str,
        *,
        clawback: bool,
    ) -> StatementLine:
        """As `Corrections.correct`, and durable. The tenant has to be named of a job that was put away."""
        job_id = allocation_id.split(".")[0]
        job = self._table.get(job_id) or await self._archive.find(tenant_id, job_id)
        line, durable = self._corrections.correct(
            job, allocation_id, microcny, reason, request_id, clawback=clawback
        )
        await durable
        self._scheduler.evaluate_waiting()
        return line

    async def _statement(
        self, party_id: str, period: str, page_token: str, is_of_party: Callable[[StatementLine], bool]
    ) -> Statement:
        """The first lines with the total of all, or the lines behind a token."""
        made = Statement(party_id=party_id, period=period)
        async for key, entries in self._entries(period, key_of(page_token)):
            lines = [line for line in lines_of(entries) if is_of_party(line)]
            if not page_token:
                add_to_total(made, lines)
            if not made.next_page_token:
                made.lines.extend(lines)
                if len(made.lines) >= LINES_MAX:
                    made.next_page_token = token_of(key)
            elif page_token:
                break
        return made

    async def _entries(self, period: str, after: str = "") -> AsyncIterator[tuple[str, list[LedgerEntry]]]:
        """The entries of a period, some at a time, each with where to go on; other work goes on beside."""
        async for some in self._pages.of(period, after):
            yield some.end, await asyncio.to_thread(_entries_on, some.pages)

    def _period(self, asked: str) -> str:
        if asked and not is_period(asked):
            advice = "must be a month or a year from 2000 on, such as 2026-11 or 2026"
            raise invalid([FieldFault("period", f"({asked!r}) {advice}")])
        return asked or month_of(self._book.now_ms())


def _faults_of(tenant_id: str) -> list[FieldFault]:
    if is_name(tenant_id):
        return []
    return [FieldFault("tenant_id", f"({tenant_id!r}) is no valid tenant; use a-z, 0-9 and -")]


def _entries_on(pages: Sequence[bytes]) -> list[LedgerEntry]:
    return [entry for page in pages for entry in LedgerPage.FromString(page).entries]
