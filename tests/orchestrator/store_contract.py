"""What every store must do, whatever it is made of: run on etcd here, and in memory in tests/memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

import pytest
from mumian_orchestrator.ports.key_value import (
    CompactedError,
    Condition,
    CreatedAt,
    Delete,
    Get,
    KeyEvent,
    KeyValue,
    LeaseEndedError,
    Listing,
    ModifiedAt,
    NoAnswerError,
    Operation,
    Outcome,
    Put,
)
from mumian_orchestrator.ports.store import Change, SupersededError, Write
from mumian_orchestrator.services.leadership import Term, campaign
from mumian_orchestrator.services.store.fenced import FencedStore
from mumian_orchestrator.services.store.reader import StoreReader

WITHIN_S = 60


class FaultyKeyValue:
    """A client whose requests are late, whose answers get lost and whose watches break, as the test says."""

    def __init__(self, kv: KeyValue) -> None:
        self._kv = kv
        self.lose_answers = 0  # of the next transactions; they happen
        self.delay_requests = 0  # of the next transactions; they happen when `deliver_late` is called
        self.watch_lasts = 0  # answers, then it breaks; 0: it does not
        self._late: list[Callable[[], Awaitable[Outcome]]] = []

    async def transact(
        self,
        conditions: Sequence[Condition],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
    ) -> Outcome:
        if self.delay_requests:
            self.delay_requests -= 1
            self._late.append(lambda: self._kv.transact(conditions, success, failure))
            raise NoAnswerError("the request is late")
        outcome = await self._kv.transact(conditions, success, failure)
        if self.lose_answers:
            self.lose_answers -= 1
            raise NoAnswerError("the answer is lost")
        return outcome

    async def deliver_late(self) -> list[Outcome]:
        late, self._late = self._late, []
        return [await request() for request in late]

    async def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[Sequence[KeyEvent], None]:
        answers = 0
        async with aclosing(self._kv.watch(prefix, from_revision)) as watched:
            async for events in watched:
                yield events
                answers += 1
                if answers == self.watch_lasts:
                    raise NoAnswerError("the watch is cut")

    async def list(self, prefix: str) -> Listing:
        return await self._kv.list(prefix)

    async def first(self, prefix: str, after: str, count: int) -> Listing:
        return await self._kv.first(prefix, after, count)

    async def pages(self, prefix: str) -> AsyncGenerator[Listing, None]:
        async with aclosing(self._kv.pages(prefix)) as pages:
            async for page in pages:
                yield page

    async def grant_lease(self, ttl_s: int) -> int:
        return await self._kv.grant_lease(ttl_s)

    async def renew_lease(self, lease_id: int) -> float:
        return await self._kv.renew_lease(lease_id)

    async def revoke_lease(self, lease_id: int) -> None:
        await self._kv.revoke_lease(lease_id)

    async def compact(self, revision: int) -> None:
        await self._kv.compact(revision)


async def take_events(watched: AsyncGenerator[Sequence[KeyEvent], None], count: int) -> list[KeyEvent]:
    """The first events of a watch, which is then closed."""
    found: list[KeyEvent] = []
    async with asyncio.timeout(WITHIN_S), aclosing(watched) as answers:
        async for events in answers:
            found.extend(events)
            if len(found) >= count:
                break
    return found


async def take_changes(watched: AsyncGenerator[Change, None], count: int) -> list[Change]:
    """The changes of a watch until they have so many events; it is then closed."""
    found: list[Change] = []
    async with asyncio.timeout(WITHIN_S), aclosing(watched) as changes:
        async for change in changes:
            found.append(change)
            if sum(len(change.events) for change in found) >= count:
                break
    return found


class KeyValueContract:
    """The port `KeyValue`. Needs the fixtures `kv` (a client) and `prefix` (whose keys are unused)."""

    async def test_a_transaction_does_one_list_of_operations_or_the_other(
        self, kv: KeyValue, prefix: str
    ) -> None:
        key = f"{prefix}a"
        first = await kv.transact([CreatedAt(key, 0)], [Put(key, b"1"), Get(key)], [Get(key)])
        [entry] = first.found
        assert (first.succeeded, entry.value, entry.mod_revision) == (True, b"1", first.revision)
        again = await kv.transact([CreatedAt(key, 0)], [Put(key, b"2")], [Get(key), Put(f"{prefix}b", b"3")])
        assert (again.succeeded, again.found) == (False, [entry])
        changed = await kv.transact([ModifiedAt(key, entry.mod_revision)], [Put(key, b"4"), Get(key)])
        [newer] = changed.found
        assert (newer.create_revision, newer.mod_revision) == (entry.create_revision, changed.revision)
        late = await kv.transact([ModifiedAt(key, entry.mod_revision)], [Delete(key)])
        assert not late.succeeded
        stored = await kv.list(prefix)
        assert [(e.key, e.value) for e in stored.entries] == [(key, b"4"), (f"{prefix}b", b"3")]

    async def test_a_listing_is_whole_and_in_order(self, kv: KeyValue, prefix: str) -> None:
        for start in range(0, 2500, 100):
            puts = [Put(f"{prefix}{number:04}", b"") for number in range(start, start + 100)]
            newest = await kv.transact([], puts)
        listing = await kv.list(prefix)
        assert listing.revision >= newest.revision
        assert [entry.key for entry in listing.entries] == [f"{prefix}{number:04}" for number in range(2500)]

    async def test_the_first_behind_a_key_are_below_the_prefix_and_in_order(
        self, kv: KeyValue, prefix: str
    ) -> None:
        await kv.transact([], [Put(f"{prefix}{name}", b"") for name in ("a/1", "b/1", "b/2", "b/3", "c/1")])
        for after, count, found in (("", 2, "12"), ("b/1", 9, "23"), ("b/2x", 1, "3"), ("b/3", 9, "")):
            listing = await kv.first(f"{prefix}b/", f"{prefix}{after}", count)
            assert [entry.key for entry in listing.entries] == [f"{prefix}b/{each}" for each in found]

    async def test_all_keys_of_a_prefix_are_deleted_at_once(self, kv: KeyValue, prefix: str) -> None:
        begun = await kv.transact([], [Put(f"{prefix}{name}", b"") for name in ("a.1", "a.2", "ab", "b")])
        await kv.transact(
            [], [Delete(f"{prefix}a.", is_prefix=True), Delete(f"{prefix}b"), Put(f"{prefix}c", b"")]
        )
        assert [e.key for e in (await kv.list(prefix)).entries] == [f"{prefix}ab", f"{prefix}c"]
        events = await take_events(kv.watch(prefix, begun.revision + 1), 4)
        assert {e.key for e in events if e.value is None} == {
            f"{prefix}{name}" for name in ("a.1", "a.2", "b")
        }

    async def test_a_lease_that_nobody_renews_takes_its_keys_along(self, kv: KeyValue, prefix: str) -> None:
        kept, left = await kv.grant_lease(2), await kv.grant_lease(2)
        begun = await kv.transact([], [Put(f"{prefix}kept", b"", kept), Put(f"{prefix}left", b"", left)])
        renewing = asyncio.create_task(renew_for_ever(kv, kept))
        [gone] = await take_events(kv.watch(prefix, begun.revision + 1), 1)
        assert (gone.key, gone.value) == (f"{prefix}left", None)
        assert [entry.key for entry in (await kv.list(prefix)).entries] == [f"{prefix}kept"]
        renewing.cancel()
        assert await kv.renew_lease(left) == 0
        with pytest.raises(LeaseEndedError):
            await kv.transact([], [Put(f"{prefix}other", b""), Put(f"{prefix}left", b"", left)])
        await kv.revoke_lease(kept)
        assert not (await kv.list(prefix)).entries

    async def test_a_watch_tells_every_write_in_order(self, kv: KeyValue, prefix: str) -> None:
        first = await kv.transact([], [Put(f"{prefix}a", b"1"), Put(f"{prefix}b", b"2")])
        watching = asyncio.create_task(take_events(kv.watch(prefix, first.revision), 4))
        second = await kv.transact([], [Delete(f"{prefix}a"), Delete(f"{prefix}absent")])
        third = await kv.transact([], [Put(f"{prefix}b", b"3")])
        assert await watching == [
            KeyEvent(f"{prefix}a", b"1", first.revision),
            KeyEvent(f"{prefix}b", b"2", first.revision),
            KeyEvent(f"{prefix}a", None, second.revision),
            KeyEvent(f"{prefix}b", b"3", third.revision),
        ]

    async def test_history_that_was_compacted_is_refused(self, kv: KeyValue, prefix: str) -> None:
        first = await kv.transact([], [Put(f"{prefix}a", b"1")])
        newest = await kv.transact([], [Put(f"{prefix}a", b"2")])
        await kv.compact(newest.revision)
        await kv.compact(newest.revision)
        await kv.compact(first.revision)
        with pytest.raises(CompactedError):
            await take_events(kv.watch(prefix, first.revision), 1)


async def renew_for_ever(kv: KeyValue, lease_id: int) -> None:
    while True:
        await kv.renew_lease(lease_id)
        await asyncio.sleep(0.5)


class StoreContract:
    """What the services rely on: the ports `Store` and `LeaderStore`. The same fixtures as above."""

    async def lead(self, kv: KeyValue, prefix: str, ttl_s: int = 60) -> tuple[Term, FencedStore]:
        term = await campaign(kv, f"{prefix}leader", "test", ttl_s)
        store = FencedStore(kv, prefix, term)
        await store.load()
        return term, store

    async def test_what_is_committed_is_loaded_by_the_next_leader(self, kv: KeyValue, prefix: str) -> None:
        term, store = await self.lead(kv, prefix)
        await store.commit([Write("a", b"1"), Write("b", b"2")])
        await store.commit([Write("a", None), Write("c", b"3")])
        await term.resign()
        newer, store = await self.lead(kv, prefix)
        assert newer.number > term.number
        assert (await store.load()).entries == {"b": b"2", "c": b"3"}
        await newer.resign()

    async def test_the_log_is_read_in_order_and_left_out_of_all_else(self, kv: KeyValue, prefix: str) -> None:
        term, store = await self.lead(kv, prefix)
        await store.commit([Write("log/a/2", b"2"), Write("log/b/1", b"3"), Write("x", b"4")])
        await store.commit([Write("log/a/1", b"1"), Write("log/b/1", None)])
        assert await store.read_log("log/a/") == [b"1", b"2"]
        assert await store.read_log("log/b/") == []
        assert (await store.load()).entries == {"x": b"4"}
        await term.resign()

    async def test_a_commit_whose_answer_is_lost_happens_once(self, kv: KeyValue, prefix: str) -> None:
        faulty = FaultyKeyValue(kv)
        term, store = await self.lead(faulty, prefix)
        begun = (await store.load()).revision
        faulty.lose_answers = 2
        revision = await store.commit([Write("a", b"1")])
        await store.commit([Write("a", b"2")])
        told = await take_changes(store.watch("", begun + 1), 2)
        events = [event for change in told for event in change.events]
        assert [(event.value, event.revision) for event in events[:1]] == [(b"1", revision)]
        assert [event.value for event in events] == [b"1", b"2"]
        await term.resign()

    async def test_an_attempt_that_arrives_late_changes_nothing(self, kv: KeyValue, prefix: str) -> None:
        faulty = FaultyKeyValue(kv)
        term, store = await self.lead(faulty, prefix)
        faulty.delay_requests = 1
        await store.commit([Write("a", b"1")])
        await store.commit([Write("a", b"2")])
        assert [outcome.succeeded for outcome in await faulty.deliver_late()] == [False]
        assert (await store.load()).entries == {"a": b"2"}
        await term.resign()

    async def test_an_old_leaders_write_never_lands_after_a_newer_ones_term_began(
        self, kv: KeyValue, prefix: str
    ) -> None:
        faulty = FaultyKeyValue(kv)
        old_term, old = await self.lead(faulty, prefix)
        faulty.delay_requests = 10**9
        commit = asyncio.create_task(old.commit([Write("a", b"old")]))
        await asyncio.sleep(0.2)
        # As when its process is stopped: its lease ends, and it knows nothing of it.
        await kv.transact([old_term.in_office], [Delete(old_term.key)])
        term, store = await self.lead(kv, prefix)
        late = await faulty.deliver_late()
        assert late
        assert not any(outcome.succeeded for outcome in late)
        faulty.delay_requests = 0
        with pytest.raises(SupersededError):
            await commit
        with pytest.raises(SupersededError):
            await old.commit([Write("a", b"older")])
        assert (await store.load()).entries == {}
        await old_term.resign()
        await store.commit([Write("a", b"new")])
        await term.resign()

    async def test_more_than_a_commit_takes_is_refused(self, kv: KeyValue, prefix: str) -> None:
        term, store = await self.lead(kv, prefix)
        with pytest.raises(ValueError, match="must be at most"):
            await store.commit([Write(str(number), b"") for number in range(128)])
        with pytest.raises(ValueError, match="must be at most"):
            await store.commit([Write("a", bytes(1_500_000))])
        largest = [Write(f"{number}", bytes(11_000)) for number in range(127)]
        await store.commit(largest)
        assert len((await store.load()).entries) == 127
        await term.resign()

    async def test_a_watch_that_is_cut_at_every_step_loses_and_doubles_nothing(
        self, kv: KeyValue, prefix: str
    ) -> None:
        faulty = FaultyKeyValue(kv)
        faulty.watch_lasts = 1
        term, store = await self.lead(kv, prefix)
        begun = (await store.load()).revision
        watching = asyncio.create_task(
            take_changes(StoreReader(faulty, prefix).watch("jobs/", begun + 1), 40)
        )
        for number in range(20):
            await store.commit([Write("jobs/a", b"%d" % number), Write("jobs/b", b"%d" % number)])
            await store.commit([Write("sites/a", b"not watched")])
        told = await watching
        assert all(len(change.events) % 2 == 0 for change in told), "a commit was split"
        assert [(event.key, event.value) for change in told for event in change.events] == [
            (key, b"%d" % number) for number in range(20) for key in ("jobs/a", "jobs/b")
        ]
        await term.resign()

    async def test_a_watch_lists_anew_what_it_missed_when_history_is_gone(
        self, kv: KeyValue, prefix: str
    ) -> None:
        term, store = await self.lead(kv, prefix)
        first = await store.commit([Write("kept", b"1"), Write("changed", b"1"), Write("removed", b"1")])
        changed = await store.commit([Write("changed", b"2"), Write("removed", None)])
        await store.commit([Write("changed", b"3"), Write("added", b"1")])
        newest = await store.commit([Write("added", b"2")])
        await kv.compact(newest)
        watching = asyncio.create_task(take_changes(store.watch("", first + 1), 3))
        await asyncio.sleep(0.2)
        after = await store.commit([Write("added", None)])
        gap, change = await watching
        assert [(e.key, e.value, e.revision) for e in gap.events] == [
            ("changed", b"3", changed + 1),
            ("added", b"2", newest),
        ]
        assert gap.present == frozenset({"kept", "changed", "added"})
        assert [(e.key, e.value, e.revision) for e in change.events] == [("added", None, after)]
        assert change.present is None
        await term.resign()

    async def test_a_watch_misses_no_deletion_at_the_revision_of_a_compaction(
        self, kv: KeyValue, prefix: str
    ) -> None:
        term, store = await self.lead(kv, prefix)
        first = await store.commit([Write("a", b"1")])
        deleted = await store.commit([Write("a", None)])
        await kv.compact(deleted)
        await store.commit([Write("b", b"1")])
        told = await take_changes(store.watch("", first + 1), 1)
        known = {"a"}
        for change in told:
            known &= change.present if change.present is not None else known
            known -= {event.key for event in change.events if event.value is None}
        assert not known
        await term.resign()

    async def test_an_unanswered_campaign_that_won_leads(self, kv: KeyValue, prefix: str) -> None:
        faulty = FaultyKeyValue(kv)
        faulty.lose_answers = 1
        async with asyncio.timeout(WITHIN_S):
            term, store = await self.lead(faulty, prefix)
        await store.commit([Write("a", b"1")])
        await term.resign()

    async def test_a_leader_whose_lease_has_ended_notices_that_its_term_is_over(
        self, kv: KeyValue, prefix: str
    ) -> None:
        term, store = await self.lead(kv, prefix, ttl_s=2)
        [held] = (await kv.list(term.key)).entries
        await kv.revoke_lease(held.lease_id)
        async with asyncio.timeout(WITHIN_S):
            await term.over.wait()
        with pytest.raises(SupersededError):
            await store.commit([Write("a", b"1")])
        await term.resign()
