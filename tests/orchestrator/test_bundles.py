"""Folders that tenants upload, on a real disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from mumian.api.v1 import error_pb2, job_pb2
from mumian.api.v1.job_pb2 import Bundle, Job
from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.disk.bundle_store import DiskBundleStore
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.services.bundles import KEPT_UNUSED_S, PIECE_BYTES_MAX, Bundles

from tests.orchestrator.tenant import spec_of

CONTENT = b"a folder" * 1000


class Jobs:
    """The one job of a table."""

    def __init__(self, *jobs: Job) -> None:
        self._jobs = {job.id: job for job in jobs}

    def jobs(self) -> list[Job]:
        return list(self._jobs.values())

    def get(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)


def bundle_of(content: bytes) -> Bundle:
    return Bundle(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def job_with(bundle: Bundle, tenant_id: str = "acme") -> Job:
    job = Job(id="work-1", tenant_id=tenant_id, spec=spec_of())
    job.spec.task_groups[0].command.bundle.CopyFrom(bundle)
    job.allocations.add(id="work-1.main.0", task_group="main")
    return job


def bundles_at(folder: Path, *jobs: Job, one_max: int = 100_000, all_max: int = 1_000_000) -> Bundles:
    return Bundles(DiskBundleStore(folder), Jobs(*jobs), SystemClock(), one_max, all_max)  # type: ignore[arg-type]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def stored(bundles: Bundles, content: bytes, tenant_id: str = "acme", piece_bytes: int = 3000) -> int:
    """Upload all of it; how many pieces it took."""
    bundle, pieces = bundle_of(content), 0
    at = await bundles.upload(tenant_id, bundle, 0, b"")
    while at < bundle.size_bytes:
        at = await bundles.upload(tenant_id, bundle, at, content[at : at + piece_bytes])
        pieces += 1
    return pieces


async def test_a_bundle_comes_in_pieces_goes_on_where_it_broke_off_and_is_sent_once(tmp_path: Path) -> None:
    job = job_with(bundle_of(CONTENT))
    first = bundles_at(tmp_path, job)
    assert await first.upload("acme", bundle_of(CONTENT), 0, CONTENT[:3000]) == 3000
    assert await first.upload("acme", bundle_of(CONTENT), 0, CONTENT[:3000]) == 3000, "the same piece again"
    assert await first.upload("acme", bundle_of(CONTENT), 5000, b"x") == 3000, "not where it ends"
    again = bundles_at(tmp_path, job)  # the next leader, on the same folder
    assert await stored(again, CONTENT) == 2
    assert await stored(again, CONTENT) == 0
    read = b""
    while piece := await again.read("work-1.main.0", len(read)):
        read += piece
    assert read == CONTENT
    await again.require("acme", job.spec)


async def test_a_bundle_whose_hash_is_wrong_is_not_kept(tmp_path: Path) -> None:
    bundles, wrong = bundles_at(tmp_path), Bundle(sha256="0" * 64, size_bytes=3)
    with pytest.raises(RequestRefusedError, match="is not the hash"):
        await bundles.upload("acme", wrong, 0, b"abc")
    assert await bundles.upload("acme", wrong, 0, b"") == 0
    assert files_in(tmp_path) == []


async def test_a_tenant_does_not_see_that_another_has_the_same(tmp_path: Path) -> None:
    bundles = bundles_at(tmp_path)
    await stored(bundles, CONTENT)
    assert await bundles.upload("other", bundle_of(CONTENT), 0, b"") == 0
    with pytest.raises(RequestRefusedError, match="is not stored"):
        await bundles.require("other", job_with(bundle_of(CONTENT)).spec)
    with pytest.raises(RequestRefusedError) as refused:
        await bundles_at(tmp_path, job_with(bundle_of(CONTENT), "other")).read("work-1.main.0", 0)
    assert refused.value.reason == error_pb2.ERROR_REASON_BUNDLE_NOT_FOUND


@pytest.mark.parametrize(
    ("bundle", "data", "said"),
    [
        (Bundle(sha256="../../etc/passwd", size_bytes=3), b"abc", "64 hexadecimal digits"),
        (Bundle(sha256="A" * 64, size_bytes=3), b"abc", "64 hexadecimal digits"),
        (Bundle(sha256="0" * 64, size_bytes=0), b"", "must be at most"),
        (Bundle(sha256="0" * 64, size_bytes=100_001), b"", "must be at most"),
        (Bundle(sha256="0" * 64, size_bytes=3), b"abcd", "goes beyond"),
        (Bundle(sha256="0" * 64, size_bytes=3), bytes(PIECE_BYTES_MAX + 1), "must be at most"),
    ],
)
async def test_what_is_no_bundle_or_too_large_is_refused(
    tmp_path: Path, bundle: Bundle, data: bytes, said: str
) -> None:
    with pytest.raises(RequestRefusedError, match=said):
        await bundles_at(tmp_path).upload("acme", bundle, 0, data)
    assert files_in(tmp_path) == []


async def test_room_is_made_by_what_nobody_uses_and_never_by_what_a_job_wants(tmp_path: Path) -> None:
    wanted, unused = b"wanted" * 1000, b"unused" * 1000
    job = job_with(bundle_of(wanted))
    bundles = bundles_at(tmp_path, job, all_max=13_000)
    await stored(bundles, wanted)
    await stored(bundles, unused)
    with pytest.raises(RequestRefusedError) as refused:
        await stored(bundles, b"other" * 1000)
    assert refused.value.reason == error_pb2.ERROR_REASON_STORE_FULL
    for path in (tmp_path / "acme").iterdir():
        os.utime(path, (0, path.stat().st_mtime - KEPT_UNUSED_S - 1))
    await stored(bundles, b"other" * 1000)
    kept = {path.name for path in (tmp_path / "acme").iterdir()}
    assert kept == {bundle_of(wanted).sha256, bundle_of(b"other" * 1000).sha256}
    job.state = job_pb2.JOB_STATE_SUCCEEDED


async def test_a_coordinator_without_a_folder_for_them_says_so() -> None:
    bundles = Bundles(None, Jobs(), SystemClock(), 1, 1)  # type: ignore[arg-type]
    with pytest.raises(RequestRefusedError, match="bundles_dir"):
        await bundles.upload("acme", bundle_of(CONTENT), 0, b"")
