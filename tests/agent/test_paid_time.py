"""A task ends when what is paid for is over, counted over the runners that it has had."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from mumian.api.v1 import job_pb2
from mumian_agent.runtime.paid_time import PaidTime, extend

from tests.agent.test_supervisor import Supervised, new_run

HOUR_MS = 3_600_000
CANCELLED = job_pb2.ALLOCATION_STATE_CANCELLED


def hour_ago_ns() -> int:
    return time.time_ns() - HOUR_MS * 1_000_000


@pytest.mark.parametrize(("funded_ms", "is_over"), [(HOUR_MS, True), (2 * HOUR_MS, False), (0, False)])
async def test_what_ran_under_a_lost_runner_is_paid_for_as_well(
    tmp_path: Path, funded_ms: int, is_over: bool
) -> None:
    run = new_run("sleep", "100")
    run.allocation.funding.funded_ms = funded_ms
    work = Supervised(tmp_path, run, start_unix_ns=hour_ago_ns())
    assert PaidTime(work.task).look() == is_over
    work.supervisor.stop()
    await work.ended()


async def test_a_task_without_paid_time_left_ends_by_itself_and_one_that_is_paid_for_again_goes_on(
    tmp_path: Path,
) -> None:
    run = new_run("sleep", "100")
    run.allocation.funding.funded_ms = HOUR_MS
    ended = (await Supervised(tmp_path, run, start_unix_ns=hour_ago_ns()).ended()).status
    assert (ended.state, ended.unfunded) == (CANCELLED, True)
    assert "its budget pays for" in ended.message
    again = Supervised(tmp_path / "again", run, start_unix_ns=hour_ago_ns())
    extend(again.log_dir, 2 * HOUR_MS)
    assert not PaidTime(again.task).look()
    again.supervisor.stop()
    assert not (await again.ended()).status.unfunded
