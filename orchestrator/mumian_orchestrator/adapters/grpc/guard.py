"""Stands before every RPC: who calls, whether they may, and what goes to the audit log.

A request is parsed only when its caller may make it, so strangers cannot make us parse.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from mumian.api.v1 import error_pb2

from mumian_orchestrator.adapters.grpc.errors import Context, abort
from mumian_orchestrator.adapters.grpc.tls import (
    FORWARDED,
    FORWARDED_CERTIFICATE,
    FORWARDED_PEER,
    peer_certificate,
)
from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid, overloaded
from mumian_orchestrator.domain.identity import NOBODY, Caller, answer_for
from mumian_orchestrator.domain.permissions import Permission, Rule, holds, rule_of
from mumian_orchestrator.services.access.api_tokens import unauthenticated
from mumian_orchestrator.services.access.audit_log import AuditLog
from mumian_orchestrator.services.access.authentication import Authentication, Shown

log = logging.getLogger(__name__)

# Watches and logs that one credential holds open at once.
STREAMS_OF_CALLER_MAX = 256
_STORED_WITHIN_S = 5.0
_ADVICE = "set MUMIAN_TOKEN, or give --token-file; `mumian-coordinator token create` makes a token"


@dataclass(frozen=True, slots=True)
class _Call:
    """One RPC that may be made."""

    caller: Caller
    origin: str  # address, for the audit log
    action: str
    rule: Rule


class Guard(grpc.aio.ServerInterceptor):
    """Applies the table of permissions."""

    def __init__(self, authentication: Authentication, audit: AuditLog) -> None:
        self._authentication, self._audit = authentication, audit
        self._open: dict[str, set[asyncio.Future[str]]] = defaultdict(set)

    def end_streams(self, credential_id: str, why: str = "the token was revoked") -> None:
        """End what was opened by a credential that is not good any more."""
        for ended in self._open.get(credential_id, ()):
            if not ended.done():
                ended.set_result(why)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler with the check before it; None where there is none such method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        path = handler_call_details.method
        if handler.response_streaming:
            return self._guarded_stream(path, handler)
        return self._guarded_unary(path, handler)

    def _guarded_unary(self, path: str, handler: Any) -> Any:
        async def answer(raw: bytes, context: Context) -> Any:
            try:
                call = await self._admit(path, context)
                request = _parsed(handler, raw)
            except RequestRefusedError as refused:
                await abort(context, refused)
            if not call.rule.is_change:
                return await handler.unary_unary(request, context)
            about, in_parts = _about(request), call.rule.in_parts
            with self._audit.changing(
                call.caller, call.origin, call.action, about, in_parts=in_parts
            ) as change:
                response = await handler.unary_unary(request, context)
            if (listed := self._audit.changed(change)) is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(listed), _STORED_WITHIN_S)
            return response

        assert not handler.request_streaming
        return grpc.unary_unary_rpc_method_handler(answer, None, handler.response_serializer)

    def _guarded_stream(self, path: str, handler: Any) -> Any:
        async def answer(raw: Any, context: Context) -> AsyncIterator[Any]:
            try:
                call = await self._admit(path, context)
                request = _each_parsed(handler, raw) if handler.request_streaming else _parsed(handler, raw)
            except RequestRefusedError as refused:
                await abort(context, refused)
            respond = handler.stream_stream if handler.request_streaming else handler.unary_stream
            responses = respond(request, context)
            if call.rule.permission in (Permission.SITE, Permission.PUBLIC):
                # A site's stream is ended by its session.
                async for response in responses:
                    yield response
                return
            try:
                async for response in self._while_valid(call.caller, responses):
                    yield response
            except RequestRefusedError as refused:
                await abort(context, refused)

        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(answer, None, handler.response_serializer)
        return grpc.unary_stream_rpc_method_handler(answer, None, handler.response_serializer)

    async def _admit(self, path: str, context: Context) -> _Call:
        """Who calls, if they may.

        Raises:
            RequestRefusedError: UNAUTHENTICATED, PERMISSION_DENIED or SITE_REVOKED.
        """
        shown, told_origin = _shown(context)
        action = path.rpartition(".")[2]
        origin = context.peer()
        if told_origin and self._authentication.speaks_for_others(shown):
            origin = told_origin
        rule, caller = rule_of(path), NOBODY
        try:
            if rule is None:
                raise _denied(f"{action} has no declared permission; this is a defect of Mumian")
            if rule.permission is not Permission.PUBLIC:
                caller = await self._authentication.caller(shown)
                _check(caller, rule.permission, action)
        except RequestRefusedError as refused:
            if self._audit.refused(caller.name, origin, action, refused.message):
                log.info("refused %s from %s (%s): %s", action, origin, caller.name, refused.message)
            raise
        answer_for(caller, origin)
        return _Call(caller, origin, action, rule)

    async def _while_valid(self, caller: Caller, responses: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The responses, until what the caller has shown is revoked or expires."""
        held = self._open[caller.credential_id]
        if len(held) >= STREAMS_OF_CALLER_MAX:
            raise overloaded(f"streams of this credential ({len(held)})", 1.0)
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        held.add(ended)
        step: asyncio.Task[Any] | None = None
        try:
            while True:
                step = asyncio.ensure_future(_next(responses))
                left_s = None if caller.expire_unix_s is None else caller.expire_unix_s - time.time()
                await asyncio.wait({step, ended}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    raise unauthenticated(ended.result() if ended.done() else "the credential has expired")
                if (response := step.result()) is None:
                    return
                yield response
        finally:
            held.discard(ended)
            if not held:
                self._open.pop(caller.credential_id, None)
            if step is not None and not step.done():
                step.cancel()
                await asyncio.wait({step})


async def _next(responses: AsyncIterator[Any]) -> Any:
    return await anext(responses, None)


def _check(caller: Caller, permission: Permission, action: str) -> None:
    if holds(caller, permission):
        return
    if caller is NOBODY:
        raise unauthenticated(f"{action} needs proof of who you are; {_ADVICE}")
    if permission is Permission.SITE:
        raise _denied(f"{action} is for the agents of sites, by the certificate that they have joined for")
    if caller.site_id:
        raise _denied(f"{action} is not for agents, and {caller.name} is one")
    roles = ", ".join(sorted(caller.roles)) or "none"
    raise _denied(f"{action} needs the permission {permission}, which your roles ({roles}) do not give")


def _denied(why: str) -> RequestRefusedError:
    return RequestRefusedError(error_pb2.ERROR_REASON_PERMISSION_DENIED, why)


def _shown(context: Context) -> tuple[Shown, str]:
    """What comes with the call; and from where it is said to come, where it was forwarded."""
    bearer, forwarded, is_forwarded, origin = "", b"", False, ""
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str):
            scheme, _, bearer = value.partition(" ")
            bearer = bearer.strip() if scheme.lower() == "bearer" else ""
        elif key == FORWARDED_CERTIFICATE and isinstance(value, bytes):
            forwarded = value
        elif key == FORWARDED:
            is_forwarded = True
        elif key == FORWARDED_PEER and isinstance(value, str):
            origin = value
    return Shown(bearer, peer_certificate(context), forwarded, is_forwarded), origin


def _parsed(handler: Any, raw: bytes) -> Any:
    try:
        return handler.request_deserializer(raw)
    except DecodeError:
        raise invalid(
            [FieldFault("request", "is no message of this method, or is nested too deeply")]
        ) from None


async def _each_parsed(handler: Any, raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for message in raw:
        yield _parsed(handler, message)


def _about(request: Message) -> dict[str, str]:
    """What a request says in its plain fields, for the audit log."""
    about: dict[str, str] = {}
    for field, value in request.ListFields():
        if field.is_repeated or field.message_type is not None or field.type == field.TYPE_BYTES:
            continue
        named = field.enum_type.values_by_number.get(value) if field.enum_type else None
        about[field.name] = named.name if named else str(value)
    return about
