"""The store while its etcd is killed, cut off and compacted: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from mumian.api.v1 import job_pb2
from mumian_orchestrator.adapters.etcd.client import Credentials, EtcdClient
from mumian_orchestrator.adapters.etcd.health import EtcdHealth
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue
from mumian_orchestrator.ports.key_value import Get, NoAnswerError
from mumian_orchestrator.ports.store import Change, Event, Write
from mumian_orchestrator.services.leadership import Term, campaign
from mumian_orchestrator.services.store.fenced import FencedStore
from mumian_orchestrator.services.store.reader import StoreReader

from tests.etcd_cluster import EtcdCluster, TcpProxy, Tls, make_certificates
from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.tenant import Tenant, spec_of

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

    def __init__(self, endpoints: Sequence[str], from_revision: int) -> None:
        self.entries: dict[str, bytes] = {}
        self.events: list[Event] = []
        self.gaps = 0
        self._revisions: dict[str, int] = {}
        self._client = EtcdClient(endpoints)
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
    follower = Follower(cluster.endpoints, begun + 1)
    written: list[tuple[str, bytes]] = []

    async def write() -> None:
        for number in itertools.count():
            key, value = f"jobs/{number % 7}", b"%d" % number
            await leader.commit([Write(key, value)])
            written.append((key, value))

    writing = asyncio.create_task(write())
    for _ in range(2):
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
        follower = Follower([proxy.endpoint], begun + 1)
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
        follower = Follower([proxy.endpoint], begun + 1)
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


async def test_a_watch_on_a_member_that_falls_silent_goes_on_at_another(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path, size=3) as cluster:
        client = EtcdClient(cluster.endpoints[1:])
        _, store = await lead(EtcdKeyValue(client))
        async with TcpProxy(cluster.endpoints[0]) as proxy:
            follower = Follower([proxy.endpoint, cluster.endpoints[2]], (await store.load()).revision + 1)
            await store.commit([Write("a", b"1")])
            await follower.until_it_has({"a": b"1"})
            proxy.hold()
            await store.commit([Write("a", b"2")])
            await follower.until_it_has({"a": b"2"})
            assert [event.value for event in follower.events] == [b"1", b"2"]
            await follower.stop()
        await client.close()


async def test_a_cluster_goes_on_without_its_leader_and_comes_back_by_itself_when_two_were_away(
    tmp_path: Path,
) -> None:
    with EtcdCluster(tmp_path, size=3) as cluster:
        client = EtcdClient(cluster.endpoints)
        _, store = await lead(EtcdKeyValue(client))
        await store.commit([Write("a", b"1")])
        [leads] = [server.endpoint for server in await EtcdHealth(client).servers() if server.leads]
        leader = next(server for server in cluster.servers if server.endpoint == leads)
        leader.kill()
        async with asyncio.timeout(WITHIN_S):
            await store.commit([Write("a", b"2")])
        other = next(server for server in cluster.servers if server is not leader)
        other.kill()
        commit = asyncio.create_task(store.commit([Write("a", b"3")]))
        await asyncio.sleep(2)
        assert not commit.done(), "one member of three makes nothing durable"
        for _ in cluster.servers:
            with pytest.raises(NoAnswerError):
                await EtcdKeyValue(client).transact([], [Get("a")])
        cluster.restart(other)
        async with asyncio.timeout(WITHIN_S):
            await commit
        assert (await store.load()).entries == {"a": b"3"}
        await client.close()


async def test_etcd_takes_only_coordinators_that_prove_themselves(tmp_path: Path) -> None:
    server_files, client_files = make_certificates(tmp_path)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    _, strange_files = make_certificates(stranger)
    with EtcdCluster(tmp_path, tls=server_files) as cluster:
        proven = EtcdClient(cluster.endpoints, credentials_of(client_files))
        _, store = await lead(EtcdKeyValue(proven))
        await store.commit([Write("a", b"1")])
        [server] = await EtcdHealth(proven, credentials_of(client_files)).servers()
        assert (server.problem, server.leads, server.quota_bytes) == ("", True, 2 * 1024**3)
        for credentials in (
            None,
            dataclasses.replace(credentials_of(strange_files), ca=client_files.ca.read_bytes()),
            credentials_of(strange_files),
        ):
            refused = EtcdClient(cluster.endpoints, credentials)
            with pytest.raises(NoAnswerError):
                await EtcdKeyValue(refused).list(PREFIX)
            await refused.close()
        await proven.close()


async def test_a_coordinator_on_three_members_says_unavailable_while_two_are_away_and_then_goes_on(
    tmp_path: Path,
) -> None:
    server_files, client_files = make_certificates(tmp_path)
    with EtcdCluster(tmp_path, size=3, tls=server_files) as cluster:
        tls: dict[str, Any] = {
            "etcd_ca": str(client_files.ca),
            "etcd_cert": str(client_files.certificate),
            "etcd_key": str(client_files.key),
        }
        coordinator = Coordinator(tmp_path, cluster.endpoints, lease_ttl_s=60, **tls)
        try:
            async with coordinator.channel() as channel:
                tenant = Tenant(channel)
                before = await tenant.create(spec_of("before"))
                for server in cluster.servers[:2]:
                    server.kill()
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await tenant.create(spec_of("during"), "request-1")
                assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
                assert "try again with the same request_id" in (refused.value.details() or "")
                cluster.restart(cluster.servers[0])
                during = await created_in_the_end(tenant, "request-1")
                assert {job.id for job in (await tenant.list()).jobs} == {before.id, during.id}
        finally:
            coordinator.running.sweep()


async def created_in_the_end(tenant: Tenant, request_id: str) -> job_pb2.Job:
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await tenant.create(spec_of("during"), request_id)
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE
                await asyncio.sleep(0.5)


def credentials_of(files: Tls) -> Credentials:
    return Credentials(
        ca=files.ca.read_bytes(), certificate=files.certificate.read_bytes(), key=files.key.read_bytes()
    )
