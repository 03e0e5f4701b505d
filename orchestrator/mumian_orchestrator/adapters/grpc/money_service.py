"""The door for budgets, published documents and accounts."""

from __future__ import annotations

from mumian.api.v1 import error_pb2
from mumian.api.v1 import money_service_pb2 as pb
from mumian.api.v1.money_pb2 import MoneyDocument
from mumian.api.v1.money_service_pb2_grpc import MoneyServiceServicer

from mumian_orchestrator.adapters.grpc.errors import Context, unary
from mumian_orchestrator.adapters.grpc.tenant import tenant_of
from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.domain.fields import FieldError
from mumian_orchestrator.domain.identity import Role, current_caller
from mumian_orchestrator.domain.money.document import name_of
from mumian_orchestrator.domain.names import is_name
from mumian_orchestrator.services.money.treasury import Treasury


class MoneyService(MoneyServiceServicer):
    """`MoneyService` over the treasury. Operators are confined to their own price lists and accounts."""

    def __init__(self, treasury: Treasury) -> None:
        self._treasury = treasury

    @unary
    async def SetBudget(self, request: pb.SetBudgetRequest, context: Context) -> pb.SetBudgetResponse:
        month = request.month_microcny if request.HasField("month_microcny") else None
        year = request.year_microcny if request.HasField("year_microcny") else None
        return pb.SetBudgetResponse(budget=await self._treasury.set_budget(request.tenant_id, month, year))

    @unary
    async def RemoveBudget(
        self, request: pb.RemoveBudgetRequest, context: Context
    ) -> pb.RemoveBudgetResponse:
        both = request.month == request.year
        budget = await self._treasury.remove_budget(
            request.tenant_id, month=request.month or both, year=request.year or both
        )
        return pb.RemoveBudgetResponse(budget=budget)

    @unary
    async def GetBudget(self, request: pb.GetBudgetRequest, context: Context) -> pb.GetBudgetResponse:
        return pb.GetBudgetResponse(budget=self._treasury.budget(tenant_of(context)))

    @unary
    async def ApplyMoneyDocument(
        self, request: pb.ApplyMoneyDocumentRequest, context: Context
    ) -> pb.ApplyMoneyDocumentResponse:
        _confine_document(request.text)
        return pb.ApplyMoneyDocumentResponse(document=_without_text(await self._treasury.apply(request.text)))

    @unary
    async def ListMoneyDocuments(
        self, request: pb.ListMoneyDocumentsRequest, context: Context
    ) -> pb.ListMoneyDocumentsResponse:
        documents = self._treasury.documents()
        operator_id = _confining_operator()
        if operator_id is not None:
            # Another's price list, and who owns whom, is no business of a competitor's.
            documents = [document for document in documents if document.name == f"offers/{operator_id}"]
        return pb.ListMoneyDocumentsResponse(documents=documents)

    @unary
    async def GetStatement(
        self, request: pb.GetStatementRequest, context: Context
    ) -> pb.GetStatementResponse:
        statement = await self._treasury.tenant_statement(
            tenant_of(context), request.period, request.page_token
        )
        return pb.GetStatementResponse(statement=statement)

    @unary
    async def GetOperatorStatement(
        self, request: pb.GetOperatorStatementRequest, context: Context
    ) -> pb.GetOperatorStatementResponse:
        operator_id = request.operator_id or current_caller().operator_id
        if not is_name(operator_id):
            raise invalid([FieldFault("operator_id", f"({operator_id!r}) is no valid operator")])
        if _confining_operator() not in (None, operator_id):
            raise _denied(f"the account of operator {operator_id}")
        statement = await self._treasury.operator_statement(operator_id, request.period, request.page_token)
        return pb.GetOperatorStatementResponse(statement=statement)

    @unary
    async def RefundAllocation(
        self, request: pb.RefundAllocationRequest, context: Context
    ) -> pb.RefundAllocationResponse:
        line = await self._treasury.correct(
            tenant_of(context),
            request.allocation_id,
            request.microcny,
            request.reason,
            request.request_id,
            clawback=request.clawback,
        )
        return pb.RefundAllocationResponse(line=line)

    @unary
    async def ListVoucherFunds(
        self, request: pb.ListVoucherFundsRequest, context: Context
    ) -> pb.ListVoucherFundsResponse:
        return pb.ListVoucherFundsResponse(funds=self._treasury.voucher_funds())

    @unary
    async def GetCityReport(
        self, request: pb.GetCityReportRequest, context: Context
    ) -> pb.GetCityReportResponse:
        report = await self._treasury.city_report(request.year)
        return pb.GetCityReportResponse(csv=report.csv(), html=report.html())


def _confining_operator() -> str | None:
    """The operator whose affairs are all that the caller may see; None: those of all."""
    caller = current_caller()
    wider = {Role.PLATFORM_ADMIN, Role.AUDITOR} & caller.roles
    return None if caller.is_local or wider else caller.operator_id


def _confine_document(text: str) -> None:
    operator_id = _confining_operator()
    if operator_id is None:
        return
    try:
        name = name_of(text)
    except FieldError as error:
        raise invalid([FieldFault("text", f"cannot be used: {error}")]) from None
    if name != f"offers/{operator_id}":
        raise _denied(f"the document {name}")


def _denied(what: str) -> RequestRefusedError:
    return RequestRefusedError(
        error_pb2.ERROR_REASON_PERMISSION_DENIED, f"{what} is not yours; use your own operator's"
    )


def _without_text(document: MoneyDocument) -> MoneyDocument:
    return MoneyDocument(name=document.name, version=document.version, apply_time=document.apply_time)
