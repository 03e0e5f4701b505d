"""The key-value port on etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import grpc

from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.messages import rpc
from mumian_orchestrator.ports.key_value import (
    CompactedError,
    Condition,
    CreatedAt,
    Delete,
    Entry,
    Get,
    KeyEvent,
    LeaseEndedError,
    Listing,
    NoAnswerError,
    Operation,
    Outcome,
    Put,
)

_PAGE_KEYS = 1000
_PAGE_PATIENCE, _COMPACTION_PATIENCE = 10, 60
# A member that has lost its leader then ends our streams, rather than leaving them open and silent.
_NEEDS_LEADER = (("hasleader", "true"),)


class EtcdKeyValue:
    """Transactions, leases and watches of an etcd cluster."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client

    async def list(self, prefix: str) -> Listing:
        """Everything below a prefix at one revision."""
        found = [page async for page in self.pages(prefix)]
        return Listing(found[0].revision, [entry for page in found for entry in page.entries])

    async def first(self, prefix: str, after: str, count: int) -> Listing:
        """At most so many entries below a prefix, the first of those behind a key."""
        start = max(prefix.encode(), after.encode() + b"\0")
        request = rpc.RangeRequest(key=start, range_end=_end_of_prefix(prefix), limit=count)
        page = await self._client.ask(lambda member: member.kv.Range, request, _PAGE_PATIENCE)
        return Listing(page.header.revision, [_entry(pair) for pair in page.kvs])

    async def pages(self, prefix: str) -> AsyncGenerator[Listing, None]:
        """The same in pages; at least one."""
        start, end, revision = prefix.encode(), _end_of_prefix(prefix), 0
        while True:
            request = rpc.RangeRequest(key=start, range_end=end, limit=_PAGE_KEYS, revision=revision)
            try:
                page = await self._client.ask(lambda member: member.kv.Range, request, _PAGE_PATIENCE)
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.OUT_OF_RANGE:
                    raise NoAnswerError(f"{prefix} was compacted while it was read") from None
                raise
            revision = revision or page.header.revision
            yield Listing(revision, [_entry(pair) for pair in page.kvs])
            if not page.more:
                return
            start = page.kvs[-1].key + b"\0"

    async def transact(
        self,
        conditions: Sequence[Condition],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
    ) -> Outcome:
        """One attempt of a transaction."""
        request = rpc.TxnRequest(compare=[_compare(condition) for condition in conditions])
        for operation in success:
            _put_operation(operation, request.success.add())
        for operation in failure:
            _put_operation(operation, request.failure.add())
        try:
            answer = await self._client.ask(lambda member: member.kv.Txn, request)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                raise LeaseEndedError(error.details()) from None
            raise
        found = [
            _entry(pair)
            for response in answer.responses
            if response.HasField("response_range")
            for pair in response.response_range.kvs
        ]
        return Outcome(answer.succeeded, answer.header.revision, found)

    async def grant_lease(self, ttl_s: int) -> int:
        """A new lease; its id."""
        request = rpc.LeaseGrantRequest(TTL=ttl_s)
        return int((await self._client.ask(lambda member: member.lease.LeaseGrant, request)).ID)

    async def renew_lease(self, lease_id: int) -> float:
        """Start a lease's time anew; the seconds that it now has, 0 when it has ended."""

        async def requests() -> AsyncIterator[object]:
            yield rpc.LeaseKeepAliveRequest(ID=lease_id)

        member = self._client.member
        call = member.lease.LeaseKeepAlive(
            requests(), metadata=_NEEDS_LEADER, timeout=2 * self._client.attempt_s
        )
        try:
            async for response in call:
                return float(response.TTL)
        except grpc.aio.AioRpcError as error:
            raise self._client.failure(member, error) from None
        finally:
            call.cancel()
        raise NoAnswerError(f"etcd {member.endpoint}: ended the stream")

    async def revoke_lease(self, lease_id: int) -> None:
        """End a lease and remove its keys; one that has ended before is no fault."""
        try:
            await self._client.ask(
                lambda member: member.lease.LeaseRevoke, rpc.LeaseRevokeRequest(ID=lease_id)
            )
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise

    async def compact(self, revision: int) -> None:
        """Forget the history before a revision; it has left etcd's file when this returns."""
        request = rpc.CompactionRequest(revision=revision, physical=True)
        try:
            await self._client.ask(lambda member: member.kv.Compact, request, _COMPACTION_PATIENCE)
        except grpc.aio.AioRpcError as error:
            # It has been compacted further before.
            if error.code() != grpc.StatusCode.OUT_OF_RANGE:
                raise

    async def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[Sequence[KeyEvent], None]:
        """What happens below a prefix from a revision on; a revision is never split."""
        create = rpc.WatchCreateRequest(
            key=prefix.encode(),
            range_end=_end_of_prefix(prefix),
            start_revision=from_revision,
            fragment=True,
        )
        open_until = asyncio.Event()

        async def requests() -> AsyncIterator[object]:
            yield rpc.WatchRequest(create_request=create)
            await open_until.wait()

        member = self._client.member
        call = member.watch.Watch(requests(), metadata=_NEEDS_LEADER)
        held: list[KeyEvent] = []
        try:
            async for answer in call:
                if answer.compact_revision:
                    raise CompactedError(f"history before revision {answer.compact_revision} is compacted")
                if answer.canceled:
                    raise NoAnswerError(f"etcd {member.endpoint}: {answer.cancel_reason or 'watch ended'}")
                held.extend(_event(event) for event in answer.events)
                whole = _whole_revisions(held) if answer.fragment else len(held)
                if whole:
                    yield held[:whole]
                    del held[:whole]
        except grpc.aio.AioRpcError as error:
            raise self._client.failure(member, error) from None
        finally:
            call.cancel()
        raise NoAnswerError(f"etcd {member.endpoint}: ended the stream")


def _whole_revisions(events: Sequence[KeyEvent]) -> int:
    """How many of the events are of revisions before the last, of which more may follow."""
    whole = len(events)
    while whole and events[whole - 1].revision == events[-1].revision:
        whole -= 1
    return whole


def _end_of_prefix(prefix: str) -> bytes:
    """The first key after all keys with this prefix."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1])


def _entry(pair: Any) -> Entry:
    return Entry(pair.key.decode(), pair.value, pair.create_revision, pair.mod_revision, pair.lease)


def _event(event: Any) -> KeyEvent:
    put = event.type == event.PUT
    return KeyEvent(event.kv.key.decode(), event.kv.value if put else None, event.kv.mod_revision)


def _compare(condition: Condition) -> Any:
    key = condition.key.encode()
    if isinstance(condition, CreatedAt):
        return rpc.Compare(
            key=key,
            result=rpc.Compare.EQUAL,
            target=rpc.Compare.CREATE,
            create_revision=condition.revision,
        )
    return rpc.Compare(
        key=key, result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, mod_revision=condition.revision
    )


def _put_operation(operation: Operation, message: Any) -> None:
    """Into a `RequestOp`, where a value is copied once."""
    match operation:
        case Put():
            put = message.request_put
            put.key, put.value, put.lease = operation.key.encode(), operation.value, operation.lease_id
        case Delete():
            message.request_delete_range.key = operation.key.encode()
            if operation.is_prefix:
                message.request_delete_range.range_end = _end_of_prefix(operation.key)
        case Get():
            message.request_range.key = operation.key.encode()
