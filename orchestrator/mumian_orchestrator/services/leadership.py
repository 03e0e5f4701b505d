"""Leadership by a key on a lease: whoever created it leads until the lease ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import aclosing

from mumian_orchestrator.ports.key_value import (
    CompactedError,
    CreatedAt,
    Delete,
    Get,
    KeyValue,
    LeaseEndedError,
    NoAnswerError,
    NoSpaceError,
    Put,
)

log = logging.getLogger(__name__)

_RETRY_S = 0.2
# Whoever waits is told when the leader's key goes; should it not be told, it asks so often.
_ASK_EVERY_S = 1.0


def leader_key(prefix: str) -> str:
    """Where the leader's name is, for as long as its lease lasts."""
    return f"{prefix}leader"


def term_base_key(leader_key: str) -> str:
    """Where a restored store keeps what is added to its revisions, so that terms go on growing."""
    return f"{leader_key}/term_base"


class Incumbent:
    """Who leads, as a candidate sees it while it waits."""

    def __init__(self) -> None:
        self.address = ""  # host:port; empty: nobody that is known
        self.changed = asyncio.Event()

    def see(self, name: str) -> None:
        """The leader's name as it is now; empty when there is none."""
        address = name.partition(" ")[0]
        if address != self.address:
            self.address = address
            self.changed.set()


def leader_name(address: str, process: str) -> str:
    """What a leader calls itself: where it answers, and which process it is."""
    return f"{address} ({process})"


class Term:
    """One leader's time in office. `number` only ever grows: it is the leader key's create_revision, and on a
    restored store, whose revisions began anew, more.
    """

    def __init__(
        self,
        kv: KeyValue,
        key: str,
        create_revision: int,
        base: int,
        lease_id: int,
        ttl_s: int,
        renewed_s: float,
    ) -> None:
        """`renewed_s`: by the loop's clock, when the lease was asked to begin anew."""
        self.key, self.number = key, base + create_revision
        self.in_office = CreatedAt(key, create_revision)  # the condition of every write
        self.over = asyncio.Event()
        self._kv, self._lease_id, self._ttl_s = kv, lease_id, ttl_s
        self._good_until_s = renewed_s + ttl_s
        self._keeper = asyncio.create_task(self._keep())

    @property
    def lease_left_s(self) -> float:
        """How long the term lasts if its lease is not renewed any more."""
        return self._good_until_s - self._now_s()

    async def resign(self) -> None:
        """Give leadership back, so that the next one need not wait for the lease to end."""
        self._keeper.cancel()
        self.over.set()
        with contextlib.suppress(NoAnswerError):
            await self._kv.transact([self.in_office], [Delete(self.key)])
            await self._kv.revoke_lease(self._lease_id)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def _keep(self) -> None:
        """Renew the lease; when that has not worked for its whole time to live, the term is over."""
        while self.lease_left_s > 0:
            sent_s = self._now_s()
            try:
                if await self._kv.renew_lease(self._lease_id) <= 0:
                    break
                self._good_until_s = sent_s + self._ttl_s
                await asyncio.sleep(self._ttl_s / 4)
            except NoAnswerError as error:
                log.warning("lease not renewed: %s", error)
                await asyncio.sleep(_RETRY_S)
        log.error("leadership lost: the lease of %d s ran out; is etcd there?", self._ttl_s)
        self.over.set()


async def _until_changed(kv: KeyValue, key: str, revision: int) -> None:
    """Until a key is written or goes after a revision, as far as the store tells; or for a while.

    Raises:
        NoAnswerError: the store does not tell.
    """
    with contextlib.suppress(TimeoutError, CompactedError):
        async with asyncio.timeout(_ASK_EVERY_S), aclosing(kv.watch(key, revision + 1)) as news:
            async for events in news:
                if any(event.key == key for event in events):
                    return


async def campaign(kv: KeyValue, key: str, name: str, ttl_s: int, incumbent: Incumbent | None = None) -> Term:
    """Wait until leadership is free, take it and keep it. Meanwhile `incumbent` sees who has it."""
    incumbent = incumbent or Incumbent()
    lease_id, renewed_s, waiting = 0, 0.0, False
    clock = asyncio.get_running_loop().time
    while True:
        try:
            asked_s = clock()
            if asked_s - renewed_s > ttl_s / 4 or not lease_id:
                if not lease_id or await kv.renew_lease(lease_id) <= 0:
                    lease_id = await kv.grant_lease(ttl_s)
                renewed_s = asked_s
            outcome = await kv.transact(
                [CreatedAt(key, 0)],
                [Put(key, name.encode(), lease_id), Get(key), Get(term_base_key(key))],
                [Get(key), Get(term_base_key(key))],
            )
            held, *bases = outcome.found
            # The lease is ours alone: an attempt that timed out and yet happened is ours too.
            if held.lease_id == lease_id:
                base = int(bases[0].value) if bases else 0
                log.info("elected; taking over what %s leaves", incumbent.address or "nobody")
                return Term(kv, key, held.create_revision, base, lease_id, ttl_s, renewed_s)
            incumbent.see(held.value.decode())
            if not waiting:
                log.info("waiting for leadership: %s leads", held.value.decode())
                waiting = True
            await _until_changed(kv, key, outcome.revision)
            continue
        except LeaseEndedError:
            lease_id = 0
        except (NoAnswerError, NoSpaceError) as error:
            if not waiting:
                log.warning("leadership not asked for: %s; trying on", error)
                waiting = True
        await asyncio.sleep(_RETRY_S)
