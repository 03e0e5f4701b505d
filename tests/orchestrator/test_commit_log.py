"""The commit log: what shares a transaction, and that nothing in it can be more than the store takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from mumian_orchestrator.ports.store import COMMIT_BYTES_MAX, COMMIT_WRITES_MAX, Write
from mumian_orchestrator.services.commit_log import CommitLog


class Recorder:
    """A store that keeps what it is given."""

    is_full = False

    def __init__(self) -> None:
        self.commits: list[list[Write]] = []

    async def commit(self, writes: Sequence[Write]) -> int:
        self.commits.append(list(writes))
        return len(self.commits)


async def committed(*groups: Sequence[Write]) -> list[list[Write]]:
    """The transactions that some appends became, once all are durable."""
    store = Recorder()
    log = CommitLog(store)
    futures = [log.append(group) for group in groups]
    running = asyncio.create_task(log.run())
    await asyncio.gather(*futures)
    running.cancel()
    return store.commits


async def test_neighbours_share_a_transaction_and_keep_their_order() -> None:
    [batch] = await committed([Write("a", b"1"), Write("b", b"1")], [Write("c", b"1")], [Write("a", b"2")])
    assert batch == [Write("a", b"2"), Write("b", b"1"), Write("c", b"1")]


async def test_a_transaction_holds_no_more_bytes_than_the_store_takes() -> None:
    large = [[Write(str(number), bytes(COMMIT_BYTES_MAX // 3))] for number in range(7)]
    commits = await committed(*large)
    assert [write.key for commit in commits for write in commit] == [str(number) for number in range(7)]
    assert all(sum(len(write.value or b"") for write in commit) <= COMMIT_BYTES_MAX for commit in commits)


async def test_a_transaction_holds_no_more_writes_than_the_store_takes() -> None:
    commits = await committed(*[[Write(str(number), b"")] for number in range(2 * COMMIT_WRITES_MAX + 1)])
    assert [len(commit) for commit in commits] == [COMMIT_WRITES_MAX, COMMIT_WRITES_MAX, 1]


@pytest.mark.parametrize(
    "writes",
    [
        [Write("large", bytes(COMMIT_BYTES_MAX))],
        [Write(str(number), b"") for number in range(COMMIT_WRITES_MAX + 1)],
    ],
)
async def test_what_the_store_would_never_take_is_refused_and_holds_nobody_up(writes: list[Write]) -> None:
    store = Recorder()
    log = CommitLog(store)
    with pytest.raises(ValueError, match="must be at most"):
        log.append(writes)
    running = asyncio.create_task(log.run())
    await log.append([Write("small", b"1")])
    running.cancel()
    assert store.commits == [[Write("small", b"1")]]
