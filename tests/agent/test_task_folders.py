"""The folder that a task has of its own: real processes in it, real archives from a tenant."""

from __future__ import annotations

import asyncio
import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from mumian.agent.v1.agent_pb2 import AgentReport, ReadOutput, RunAllocation
from mumian.api.v1.job_pb2 import Bundle, Command
from mumian.archives import files_below, pack, unpack
from mumian_agent.runtime import log_files, task_folder

from tests.agent.bundles import GivenBundles, folders_of
from tests.agent.scripted_coordinator import run_of
from tests.agent.test_state import FAILED, SUCCEEDED, Site, stored


def bundle_of(folder: Path, **files: str) -> bytes:
    """Files as a tenant packs them; "__" in a name stands for a dot."""
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    out = io.BytesIO()
    pack(folder, files_below(folder), out)
    return out.getvalue()


def run_in(content: bytes, allocation_id: str, script: str, **more: Any) -> RunAllocation:
    """A shell script that starts in what was packed."""
    bundle = Bundle(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    command = Command(argv=["sh", "-c", script], bundle=bundle)
    return run_of(allocation_id, command=command, **more)


@pytest.fixture
def packed(tmp_path: Path) -> bytes:
    """A folder with a program and some data."""
    folder = tmp_path / "tenant"
    folder.mkdir()
    return bundle_of(folder, main__py="print(open('data').read())", data="42")


@pytest.fixture
def source() -> GivenBundles:
    """Gives nothing yet."""
    return GivenBundles()


def output(site: Site, run: RunAllocation) -> str:
    entry = site.allocations.newest_of(run.allocation.id)
    assert entry is not None
    return (site.journal.log_dir(entry.key) / log_files.STDOUT).read_text()


def message(site: Site, run: RunAllocation) -> str:
    entry = site.allocations.newest_of(run.allocation.id)
    assert entry is not None
    return entry.status.message


async def test_each_task_starts_in_a_copy_of_its_own_that_is_gone_with_it(
    tmp_path: Path, packed: bytes, source: GivenBundles
) -> None:
    site = Site(tmp_path, source=source)
    runs = [run_in(packed, f"own-{n}.main.0", "python main.py; echo more >> data; cat data") for n in (1, 2)]
    for run in runs:
        source.of[run.allocation.id] = packed
        site.allocations.run(run)
        await site.until(run, SUCCEEDED)
        assert output(site, run) == "42\n42more\n"
    assert source.reads == 2, "it came once, and then it was there"
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("is_one_bundle", [True, False])
async def test_tasks_that_start_together_get_their_folders_and_one_bundle_is_fetched_once(
    tmp_path: Path, source: GivenBundles, is_one_bundle: bool
) -> None:
    site, runs = Site(tmp_path, source=source), []
    for number in range(12):
        folder = tmp_path / f"tenant-{number}"
        folder.mkdir()
        packed = bundle_of(folder, data="42" if is_one_bundle else str(number))
        runs.append(run_in(packed, f"own-{number}.main.0", "cat data"))
        source.of[runs[-1].allocation.id] = packed
    for run in runs:
        site.allocations.run(run)
    for number, run in enumerate(runs):
        await site.until(run, SUCCEEDED)
        assert output(site, run) == ("42" if is_one_bundle else str(number))
    assert source.reads == (2 if is_one_bundle else 24)


async def test_a_task_that_is_restarted_finds_its_folder_as_it_left_it(
    tmp_path: Path, packed: bytes, source: GivenBundles
) -> None:
    site = Site(tmp_path, source=source)
    run = run_in(packed, "again.main.0", "test -e mark || { touch mark; exit 1; }", max_restarts=1)
    source.of[run.allocation.id] = packed
    site.allocations.run(run)
    await site.until(run, SUCCEEDED)


async def test_a_task_waits_while_nobody_gives_its_bundle_and_says_so(
    tmp_path: Path, packed: bytes, source: GivenBundles
) -> None:
    site = Site(tmp_path, source=source)
    run = run_in(packed, "late.main.0", "true")
    source.of[run.allocation.id], source.away = packed, 1
    site.allocations.run(run)
    while not message(site, run):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert message(site, run) == "waits for its bundle: nobody answers"
    await site.until(run, SUCCEEDED)


async def test_a_bundle_that_is_gone_or_another_one_fails_the_task(
    tmp_path: Path, packed: bytes, source: GivenBundles
) -> None:
    site = Site(tmp_path, source=source)
    gone = run_in(packed, "gone.main.0", "true")
    site.allocations.run(gone)
    await site.until(gone, FAILED)
    assert "is not stored here" in message(site, gone)
    other = run_in(packed, "other.main.0", "true")
    source.of[other.allocation.id] = packed + b"x"
    site.allocations.run(other)
    await site.until(other, FAILED)
    assert "another hash" in message(site, other)
    damaged = run_in(b"no archive", "damaged.main.0", "true")
    source.of[damaged.allocation.id] = b"no archive"
    site.allocations.run(damaged)
    await site.until(damaged, FAILED)
    assert "cannot be unpacked" in message(site, damaged)
    assert site.runners.starts() == 0


async def test_what_a_task_leaves_by_its_patterns_is_kept_and_read_out_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    script = (
        "mkdir -p deep/er; echo 1 > a.csv; echo 2 > deep/er/b.csv; echo no > c.txt; "
        "ln -s /etc/passwd stolen.csv; exit 3"
    )
    run = run_of("out.main.0", "sh", "-c", script, outputs=["**/*.csv"])
    site.allocations.run(run)
    await site.until(run, FAILED)
    entry = site.allocations.newest_of("out.main.0")
    assert entry is not None
    assert entry.status.output_bytes == site.journal.outputs(entry.key).stat().st_size
    monkeypatch.setattr("mumian_agent.agent.task_folders.OUTPUT_PIECE_BYTES", 50)
    folders, read = folders_of(tmp_path), io.BytesIO()

    class Sink:
        async def put_log(self, report: AgentReport) -> bool:
            self.chunk = report.log_chunk
            return True

        def put(self, slot: object, report: Any) -> None: ...

    sink = Sink()
    while True:
        asked = ReadOutput(read_id=1, allocation_id="out.main.0", offset_bytes=read.tell())
        await folders.read_output(asked, entry.key, sink)
        if not sink.chunk.data:
            break
        read.write(sink.chunk.data)
    read.seek(0)
    got = tmp_path / "got"
    got.mkdir()
    files = unpack(read, got, bytes_max=1000, files_max=10)
    assert [str(file) for file in files] == ["a.csv", "deep/er/b.csv"]
    await folders.read_output(ReadOutput(read_id=2, allocation_id="none"), None, sink)
    assert "keeps the newest only" in sink.chunk.error


async def test_outputs_over_the_limit_are_not_kept_and_the_end_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_folder, "OUTPUT_BYTES_MAX", 10)
    site = Site(tmp_path)
    run = run_of("big.main.0", "sh", "-c", "echo 12345678901 > big", outputs=["big"])
    site.allocations.run(run)
    await site.until(run, SUCCEEDED)
    assert message(site, run).startswith("outputs are not kept: outputs (1 files")


async def test_a_site_keeps_the_newest_outputs_only_and_forgets_those_of_forgotten_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    monkeypatch.setattr(task_folder, "OUTPUTS_KEPT_BYTES", 350)
    runs = [run_of(f"many-{n}.main.0", "sh", "-c", "echo 1 > one", outputs=["one"]) for n in range(4)]
    for run in runs:
        site.allocations.run(run)
        await site.until(run, SUCCEEDED)
    kept = list((tmp_path / "outputs").iterdir())
    assert 1 <= len(kept) < 4
    monkeypatch.setattr("mumian_agent.runtime.journal._KEPT_MAX", 0)
    for run in runs:
        site.allocations.stored(stored(run, SUCCEEDED))
    assert list((tmp_path / "outputs").iterdir()) == []
