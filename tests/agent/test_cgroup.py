"""Limits that the kernel keeps: who may make cgroups, what is written into them; nothing gets away."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mumian.api.v1 import job_pb2
from mumian_agent.runtime import limits
from mumian_agent.runtime.cgroup import Cgroup, NotDelegatedError, delegated

from tests.agent.test_supervisor import Supervised, new_run

UNIT = "/system.slice/mumian-agent.service"
FAILED, SUCCEEDED = job_pb2.ALLOCATION_STATE_FAILED, job_pb2.ALLOCATION_STATE_SUCCEEDED


def cgroup_tree(folder: Path, own: str, **files: str) -> tuple[Path, Path]:
    """A cgroup v2 tree as the kernel shows it, with the unit of the agent in it."""
    unit = folder / "system.slice/mumian-agent.service"
    (unit / "agent").mkdir(parents=True)
    (folder / "cgroup.controllers").write_text("cpu memory pids\n")
    for name, text in {
        "controllers": "cpu memory pids\n",
        "procs": "",
        "subtree_control": "",
        **files,
    }.items():
        (unit / f"cgroup.{name}").write_text(text)
    (folder / "self").write_text(f"0::{own}\n")
    return folder, folder / "self"


def test_cgroups_are_the_agents_where_its_unit_delegates_them_and_it_is_below(tmp_path: Path) -> None:
    tree = cgroup_tree(tmp_path, f"{UNIT}/agent")
    assert delegated(*tree) == tmp_path / "system.slice/mumian-agent.service"


@pytest.mark.parametrize(
    ("own", "files", "why"),
    [
        ("/", {}, "not one of its own"),
        (UNIT, {}, "not one of its own called agent"),
        (
            f"{UNIT}/agent",
            {"controllers": "pids\n"},
            "no controller cpu and memory",
        ),
        (f"{UNIT}/agent", {"procs": "17\n"}, "has processes of its own"),
        ("/elsewhere/agent", {}, "cannot be read"),
    ],
)
def test_cgroups_are_not_the_agents_elsewhere_and_it_is_told_why(
    tmp_path: Path, own: str, files: dict[str, str], why: str
) -> None:
    with pytest.raises(NotDelegatedError, match=why):
        delegated(*cgroup_tree(tmp_path, own, **files))


def test_a_machine_without_cgroup_v2_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(NotDelegatedError, match="no cgroup v2 is mounted"):
        delegated(tmp_path)


def test_the_limits_of_a_task_are_written_as_the_kernel_wants_them(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").touch()
    made = tmp_path / "task"
    made.mkdir()
    for name in ("cpu.max", "memory.max", "memory.swap.max", "memory.oom.group", "cgroup.procs"):
        (made / name).touch()
    cgroup = Cgroup.make(tmp_path, "task", cpu_milli=1500, memory_mib=256)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory"
    written = {file.name: file.read_text() for file in made.iterdir()}
    assert written == {
        "cpu.max": "150000 100000",
        "memory.max": "268435456",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cgroup.procs": "",
    }
    assert not cgroup.was_over_memory()
    (made / "memory.events").write_text("low 0\nmax 7\noom 1\noom_kill 0\n")
    assert not cgroup.was_over_memory()
    (made / "memory.events").write_text("low 0\nmax 7\noom 1\noom_kill 3\n")
    assert cgroup.was_over_memory()


@pytest.fixture
def real() -> Iterator[Path]:
    """A cgroup of this machine's own cgroup v2."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    folder = roots[0] / f"mumian-test-{os.getpid()}" if roots else None
    try:
        assert folder is not None
        folder.mkdir()
    except (AssertionError, OSError):
        pytest.skip("no cgroup v2 that this user may write")
    yield folder
    with contextlib.suppress(OSError):
        folder.rmdir()


def test_nothing_gets_out_of_a_cgroup_and_all_of_it_ends_at_once(real: Path) -> None:
    # It leaves its session, its parent and its environment behind; a cgroup cannot be left.
    script = "sleep 0.2; env -i setsid sleep 300 & sleep 0.3; exit 0"
    with subprocess.Popen(["sh", "-c", script], start_new_session=True) as task:
        cgroup = Cgroup(real)
        cgroup.take([task.pid])
    [daemon] = [int(pid) for pid in (real / "cgroup.procs").read_text().split()]
    assert psutil.Process(daemon).cmdline() == ["sleep", "300"]
    cgroup.take([task.pid])  # it has ended: no matter
    cgroup.end()
    assert not real.exists()
    assert not psutil.pid_exists(daemon) or psutil.Process(daemon).status() == psutil.STATUS_ZOMBIE
    cgroup.end()  # again: no matter


async def test_a_task_in_a_cgroup_leaves_nothing_behind(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This machine's cgroup v2 has no controllers to give, so the limits themselves are not set here.
    monkeypatch.setattr(limits, "keep", lambda task: Cgroup(real))
    run = new_run("sh", "-c", "sleep 0.2; env -i setsid sleep 301 & sleep 0.3")
    assert (await Supervised(tmp_path, run).ended()).status.state == SUCCEEDED
    assert real not in list(real.parent.iterdir())
    assert [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "301"]] == []


async def test_where_the_kernel_does_not_take_the_limits_the_task_runs_and_is_looked_at(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "where_kept", lambda: real)
    run = new_run("python", "-c", "x = b'x' * 300_000_000; import time; time.sleep(60)")
    run.task_group.resources.memory_mib = 64
    ended = (await Supervised(tmp_path, run).ended()).status
    assert ended.state == FAILED
    assert "memory limit (64 MiB) exceeded: it used" in ended.message
    assert "the kernel does not keep the limits of" in caplog.text
