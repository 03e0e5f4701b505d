"""Leadership by a key on a lease: whoever created it leads until the lease ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

import grpc

from mumian_orchestrator.adapters.etcd.client import ATTEMPT_S, EtcdClient, created_at, delete, get, put
from mumian_orchestrator.adapters.etcd.messages import rpc

log = logging.getLogger(__name__)

_RETRY_S = 0.2


class Term:
    """One leader's time in office. `number` is the leader key's create_revision: it only ever grows."""

    def __init__(self, client: EtcdClient, key: str, number: int, lease_id: int, ttl_s: int) -> None:
        self.key, self.number = key, number
        self.over = asyncio.Event()
        self._client, self._lease_id, self._ttl_s = client, lease_id, ttl_s
        self._keeper = asyncio.create_task(self._keep())

    async def resign(self) -> None:
        """Give leadership back, so that the next one need not wait for the lease to end."""
        self._keeper.cancel()
        self.over.set()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._client.txn([created_at(self.key, self.number)], [delete(self.key)])
            await self._client.lease.LeaseRevoke(rpc.LeaseRevokeRequest(ID=self._lease_id), timeout=ATTEMPT_S)

    async def _keep(self) -> None:
        """Renew the lease; when that has not worked for its whole time to live, the term is over."""
        good_until = time.monotonic() + self._ttl_s
        while time.monotonic() < good_until:
            sent = time.monotonic()
            try:
                if await self._renew() <= 0:
                    break
                good_until = sent + self._ttl_s
                await asyncio.sleep(self._ttl_s / 4)
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                log.warning("lease not renewed: %s", getattr(error, "details", lambda: "timed out")())
                await asyncio.sleep(_RETRY_S)
        log.error("leadership lost: the lease of %d s ran out; is etcd there?", self._ttl_s)
        self.over.set()

    async def _renew(self) -> int:
        """One renewal; the seconds that the lease now has, 0 when it has ended."""

        async def requests() -> AsyncIterator[object]:
            yield rpc.LeaseKeepAliveRequest(ID=self._lease_id)

        call = self._client.lease.LeaseKeepAlive(requests())
        try:
            async with asyncio.timeout(2 * ATTEMPT_S):
                async for response in call:
                    return int(response.TTL)
            return 0
        finally:
            call.cancel()


async def campaign(client: EtcdClient, key: str, name: str, ttl_s: int) -> Term:
    """Wait until leadership is free, take it and keep it."""
    lease_id, waiting = 0, False
    while True:
        try:
            if not lease_id:
                granted = await client.lease.LeaseGrant(rpc.LeaseGrantRequest(TTL=ttl_s), timeout=ATTEMPT_S)
                lease_id = granted.ID
            answer = await client.txn(
                [created_at(key, 0)], [put(key, name.encode(), lease_id), get(key)], [get(key)]
            )
            [held] = answer.responses[-1].response_range.kvs
            # The lease is ours alone: an attempt that timed out and yet happened is ours too.
            if held.lease == lease_id:
                return Term(client, key, held.create_revision, lease_id, ttl_s)
            if not waiting:
                log.info("waiting for leadership: %s leads", held.value.decode())
                waiting = True
            kept = client.lease.LeaseTimeToLive(rpc.LeaseTimeToLiveRequest(ID=lease_id), timeout=ATTEMPT_S)
            if ttl_s / 2 > (await kept).TTL:
                lease_id = 0
        except grpc.aio.AioRpcError as error:
            if not waiting:
                log.warning("etcd does not answer: %s; trying on", error.details())
                waiting = True
        await asyncio.sleep(_RETRY_S)
