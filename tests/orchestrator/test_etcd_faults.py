"""The store while its etcd is killed, cut off and compacted: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue
from mumian_orchestrator.ports.store import Change, Event, Write
from mumian_orchestrator.services.leadership import Term, campaign
from mumian_orchestrator.services.store.fenced import FencedStore
from mumian_orchestrator.services.store.reader import StoreReader

from tests.etcd_cluster import EtcdCluster, TcpProxy

pytestmark = pytest.mark.etcd

PREFIX = "/mumian/"
WITHIN_S = 120


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    """An etcd that the test may ill-treat."""
    with EtcdCluster(tmp_path) as running:
        yield running


@pytest.fixture
async def leader(cluster: EtcdCluster) -> AsyncIterator[FencedStore]:
    """The store of a leader whose lease outlasts the test."""
    client = EtcdClient(cluster.endpoints)
    term, store = await lead(EtcdKeyValue(client))
    yield store
    await term.resign()
    await client.close()


async def lead(kv: EtcdKeyValue) -> tuple[Term, FencedStore]:
    term = await campaign(kv, f"{PREFIX}leader", "test", 600)
    store = FencedStore(kv, PREFIX, term)
    await store.load()
    return term, store


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


class Follower:
    """Keeps its own copy of the store by a watch, and checks that no event comes twice or out of order."""

    def __init__(self, endpoint: str, from_revision: int) -> None:
        self.entries: dict[str, bytes] = {}
        self.events: list[Event] = []
        self.gaps = 0
        self._revisions: dict[str, int] = {}
        self._client = EtcdClient([endpoint])
        self._reader = StoreReader(EtcdKeyValue(self._client), PREFIX)
        self._following = asyncio.create_task(self._follow(from_revision))

    async def until_it_has(self, entries: dict[str, bytes]) -> None:
        """Wait until the copy is the same as the original."""
        await until(lambda: self._following.done() or self.entries == entries)
        if self._following.done():
            self._following.result()

    async def stop(self) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        await self._client.close()

    async def _follow(self, from_revision: int) -> None:
        async with aclosing(self._reader.watch("", from_revision)) as changes:
            async for change in changes:
                self._take(change)

    def _take(self, change: Change) -> None:
        if change.present is not None:
            self.gaps += 1
            self.entries = {key: value for key, value in self.entries.items() if key in change.present}
        self.events.extend(change.events)
        for event in change.events:
            assert event.revision > self._revisions.get(event.key, 0), f"{event.key} came twice or too late"
            self._revisions[event.key] = event.revision
            if event.value is None:
                self.entries.pop(event.key, None)
            else:
                self.entries[event.key] = event.value


async def test_a_watch_and_commits_survive_an_etcd_that_is_killed_again_and_again(
    cluster: EtcdCluster, leader: FencedStore
) -> None:
    begun = (await leader.load()).revision
    follower = Follower(cluster.endpoints[0], begun + 1)
    written: list[tuple[str, bytes]] = []

    async def write() -> None:
        for number in itertools.count():
            key, value = f"jobs/{number % 7}", b"%d" % number
            await leader.commit([Write(key, value)])
            written.append((key, value))

    writing = asyncio.create_task(write())
    for _ in range(3):
        enough = len(written) + 100
        await until(lambda: len(written) >= enough)  # noqa: B023 - called only within this round
        cluster.servers[0].kill()
        await asyncio.sleep(0.5)
        cluster.restart(cluster.servers[0])
    last = len(written)
    await until(lambda: len(written) >= last + 100)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    stored = dict((await leader.load()).entries)
    await follower.until_it_has(stored)
    told = [(event.key, event.value) for event in follower.events]
    # The commit that was under way when the writing ended may have happened too.
    assert told[: len(written)] == written
    assert len(told) <= len(written) + 1
    assert follower.gaps == 0
    await follower.stop()


async def test_a_watch_that_is_cut_for_10_000_writes_tells_each_once(
    cluster: EtcdCluster, leader: FencedStore
) -> None:
    """75 MB: more than one message of gRPC takes, so etcd has to send them in parts."""
    async with TcpProxy(cluster.endpoints[0]) as proxy:
        begun = (await leader.load()).revision
        follower = Follower(proxy.endpoint, begun + 1)
        await leader.commit([Write("before", b"")])
        await follower.until_it_has({"before": b""})
        proxy.cut()
        for start in range(0, 10_000, 125):
            await leader.commit([Write(f"jobs/{start + n}", bytes(7500)) for n in range(125)])
        proxy.mend()
        await follower.until_it_has(dict((await leader.load()).entries))
        assert [event.key for event in follower.events] == ["before", *(f"jobs/{n}" for n in range(10_000))]
        assert follower.gaps == 0
        await follower.stop()


async def test_a_watch_that_is_cut_for_10_000_writes_and_a_compaction_has_every_key_once(
    cluster: EtcdCluster, leader: FencedStore
) -> None:
    client = EtcdClient(cluster.endpoints)
    async with TcpProxy(cluster.endpoints[0]) as proxy:
        begun = (await leader.load()).revision
        follower = Follower(proxy.endpoint, begun + 1)
        before = [f"before/{n}" for n in range(100)]
        await leader.commit([Write(key, b"old") for key in before])
        await follower.until_it_has(dict.fromkeys(before, b"old"))
        proxy.cut()
        for start in range(0, 10_000, 125):
            await leader.commit([Write(f"jobs/{start + n}", b"new") for n in range(125)])
            if start == 8_000:
                gone = [Write(key, None) for key in before[:50]]
                await EtcdKeyValue(client).compact(await leader.commit(gone))
        await leader.commit([Write("jobs/0", b"newer"), Write("jobs/1", None)])
        proxy.mend()
        await follower.until_it_has(dict((await leader.load()).entries))
        assert follower.gaps == 1
        # What the gap hides is the versions in between, no key: `jobs/1` was written and deleted in it.
        told = [event.key for event in follower.events[100:]]
        assert sorted(told) == sorted(f"jobs/{n}" for n in range(10_000) if n != 1)
        await leader.commit([Write("after", b"")])
        await follower.until_it_has(dict((await leader.load()).entries))
        await follower.stop()
    await client.close()
