"""A thin asyncio layer over etcd's gRPC API: short attempts, nothing left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from mumian_orchestrator.adapters.etcd.messages import rpc, stubs

# A timed-out write may still happen later, so attempts are short and every write is safe to repeat.
ATTEMPT_S = 0.5
_PAGE_KEYS = 1000
_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Also the connect timeout: below a second a slow machine never connects.
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


def end_of_prefix(prefix: str) -> bytes:
    """The first key after all keys with this prefix."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1])


class EtcdClient:
    """One channel to an etcd endpoint (host:port)."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
        self._kv = stubs.KVStub(self._channel)
        self.lease = stubs.LeaseStub(self._channel)
        self.watch = stubs.WatchStub(self._channel)

    async def close(self) -> None:
        """End every call and the channel."""
        await self._channel.close()

    async def range_prefix(self, prefix: str) -> Mapping[str, bytes]:
        """All keys under a prefix at one revision, read in pages.

        Raises:
            grpc.aio.AioRpcError: etcd did not answer in time.
        """
        found: dict[str, bytes] = {}
        start, end, revision = prefix.encode(), end_of_prefix(prefix), 0
        while True:
            page = await self._kv.Range(
                rpc.RangeRequest(key=start, range_end=end, limit=_PAGE_KEYS, revision=revision),
                timeout=10 * ATTEMPT_S,
            )
            revision = revision or page.header.revision
            for pair in page.kvs:
                found[pair.key.decode()] = pair.value
            if not page.more:
                return found
            start = page.kvs[-1].key + b"\0"

    async def txn(self, compare: Sequence[Any], success: Sequence[Any], failure: Sequence[Any] = ()) -> Any:
        """One attempt of a transaction.

        Raises:
            grpc.aio.AioRpcError: no answer; the transaction may have happened, or may still happen.
        """
        request = rpc.TxnRequest(compare=compare, success=success, failure=failure)
        return await self._kv.Txn(request, timeout=ATTEMPT_S)


def created_at(key: str, revision: int) -> Any:
    """The condition that a key was created at a revision; 0: that it does not exist."""
    return rpc.Compare(
        key=key.encode(),
        result=rpc.Compare.EQUAL,
        target=rpc.Compare.CREATE,
        create_revision=revision,
    )


def modified_at(key: str, revision: int) -> Any:
    """The condition that a key was last written at a revision; 0: that it does not exist."""
    return rpc.Compare(
        key=key.encode(), result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, mod_revision=revision
    )


def put(key: str, value: bytes, lease: int = 0) -> Any:
    """The operation that stores a key."""
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key.encode(), value=value, lease=lease))


def delete(key: str) -> Any:
    """The operation that removes a key."""
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key.encode()))


def get(key: str) -> Any:
    """The operation that reads a key."""
    return rpc.RequestOp(request_range=rpc.RangeRequest(key=key.encode()))
