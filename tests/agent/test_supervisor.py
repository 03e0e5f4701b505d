"""One task on this machine, without Ray: real processes, real ports, real signals."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from mumian.agent.v1.agent_pb2 import RunAllocation
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Port
from mumian.api.v1.resources_pb2 import Accelerator, DeviceShare
from mumian_agent.runtime import log_files, process_tree
from mumian_agent.runtime.contact import Contact, now_ns
from mumian_agent.runtime.environment import devices_active_power_mw, environment_of
from mumian_agent.runtime.supervisor import Supervisor
from mumian_agent.runtime.task import Task, TaskView

from tests.agent.scripted_coordinator import run_of

RUNNING, STARTING = job_pb2.ALLOCATION_STATE_RUNNING, job_pb2.ALLOCATION_STATE_STARTING
SUCCEEDED, FAILED = job_pb2.ALLOCATION_STATE_SUCCEEDED, job_pb2.ALLOCATION_STATE_FAILED
CANCELLED = job_pb2.ALLOCATION_STATE_CANCELLED
SERVICE = job_pb2.JOB_KIND_SERVICE
AUTO = Port(name="main")
_numbers = itertools.count()
LISTEN = (
    "import os, socket, time; s = socket.create_server(('127.0.0.1', int(os.environ['MUMIAN_PORT']))); "
    "print('listens', flush=True); time.sleep(100)"
)


class Supervised:
    """A supervisor at work on a command."""

    def __init__(self, folder: Path, run: RunAllocation, **task: Any) -> None:
        self.log_dir = folder / "log"
        fields = {
            "run": run,
            "host": "127.0.0.1",
            "log_dir": str(self.log_dir),
            "environment": environment_of(run, ()),
            "core_active_power_mw": 5000,
            "devices_active_power_mw": 0,
            "stop_grace_s": 0.3,
            "contact": str(folder / "contact"),
            **task,
        }
        self.task = Task(**fields)
        self.supervisor = Supervisor(self.task)
        self.running = asyncio.create_task(self.supervisor.run())

    async def until(self, found: Callable[[TaskView], bool]) -> TaskView:
        """The first view of that kind."""
        version = 0
        async with asyncio.timeout(120):
            while not found(view := await self.supervisor.changed_after(version)):
                version = view.version
        return view

    async def ended(self) -> TaskView:
        """The last view."""
        async with asyncio.timeout(120):
            await self.running
        return self.supervisor.view()

    def output(self, name: str = log_files.STDOUT) -> str:
        """What the task wrote."""
        return (self.log_dir / name).read_text()

    def left(self) -> list[psutil.Process]:
        """Its processes that live."""
        return process_tree.members(*self.task.key)


def new_run(*argv: str, **more: Any) -> RunAllocation:
    """A run of an allocation of its own: processes are found by its name."""
    return run_of(f"t{next(_numbers)}-{os.getpid()}.main.0", *argv, **more)


async def test_a_command_that_ends_well_succeeds_with_its_output_in_files(tmp_path: Path) -> None:
    work = Supervised(tmp_path, new_run("sh", "-c", "echo out; echo err >&2"))
    view = await work.ended()
    assert (view.status.state, view.status.exit_code) == (SUCCEEDED, 0)
    assert (work.output(), work.output(log_files.STDERR)) == ("out\n", "err\n")
    assert view.status.start_time.ToNanoseconds() <= view.status.end_time.ToNanoseconds()


@pytest.mark.parametrize(
    ("script", "exit_code", "message"),
    [
        ("exit 3", 3, "exited with status 3"),
        ("kill -9 $$", 128 + signal.SIGKILL, "killed by SIGKILL"),
        ("kill -TERM $$", 128 + signal.SIGTERM, "killed by SIGTERM"),
    ],
)
async def test_a_bad_end_shows_its_exit_code(
    tmp_path: Path, script: str, exit_code: int, message: str
) -> None:
    view = await Supervised(tmp_path, new_run("sh", "-c", script)).ended()
    assert (view.status.state, view.status.exit_code) == (FAILED, exit_code)
    assert view.status.message == message


async def test_a_command_that_is_not_there_fails_at_once_with_127_and_its_name(tmp_path: Path) -> None:
    view = await Supervised(tmp_path, new_run("no-such-command", max_restarts=5)).ended()
    assert (view.status.exit_code, view.status.restart_count) == (127, 0)
    assert "no-such-command" in view.status.message


async def test_a_working_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = job_pb2.Command(argv=["true"], working_directory="/no/such")
    view = await Supervised(tmp_path, new_run(command=command)).ended()
    assert view.status.state == FAILED
    assert "working_directory (/no/such)" in view.status.message


async def test_a_task_sees_who_it_is_and_no_secret_of_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    command = job_pb2.Command(argv=["env"], environment={"OWN": "1", "MUMIAN_ALLOCATION_ID": "forged"})
    run = new_run(command=command)
    work = Supervised(tmp_path, run)
    await work.ended()
    seen = dict(line.split("=", 1) for line in work.output().splitlines())
    assert (seen["OWN"], seen["MUMIAN_ALLOCATION_ID"]) == ("1", run.allocation.id)
    assert (seen["MUMIAN_TASK_COUNT"], seen["MUMIAN_NODE_ID"]) == ("1", "gz-test/n1")
    assert "RAY_AUTH_TOKEN" not in seen


async def test_a_failed_task_is_restarted_as_often_as_it_may_be(tmp_path: Path) -> None:
    work = Supervised(tmp_path, new_run("sh", "-c", "echo again; exit 1", max_restarts=2))
    view = await work.ended()
    assert (view.status.state, view.status.restart_count) == (FAILED, 2)
    assert work.output() == "again\n" * 3
    assert view.status.message == "exited with status 1, after 2 restarts"


async def test_a_task_that_succeeds_after_a_restart_succeeds(tmp_path: Path) -> None:
    script = f"test -e {tmp_path}/mark || {{ touch {tmp_path}/mark; exit 1; }}"
    view = await Supervised(tmp_path, new_run("sh", "-c", script, max_restarts=1)).ended()
    assert (view.status.state, view.status.restart_count) == (SUCCEEDED, 1)


async def test_a_service_that_ends_with_0_is_restarted_too(tmp_path: Path) -> None:
    view = await Supervised(tmp_path, new_run("true", kind=SERVICE, max_restarts=1)).ended()
    assert (view.status.state, view.status.restart_count, view.status.exit_code) == (FAILED, 1, 0)


async def test_a_service_is_running_when_its_port_accepts_and_shows_its_endpoint(tmp_path: Path) -> None:
    script = f"import time; time.sleep(0.2); {LISTEN}"
    work = Supervised(tmp_path, new_run("python", "-c", script, kind=SERVICE, ports=[AUTO]))
    view = await work.until(lambda view: view.status.state == RUNNING)
    [endpoint] = view.status.endpoints
    assert endpoint.port == "main"
    host, port = endpoint.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.close()
    work.supervisor.stop()
    await work.ended()


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        run = new_run("sleep", "9", kind=SERVICE, ports=[Port(name="http", number=port)], max_restarts=0)
        view = await Supervised(tmp_path, run).ended()
    assert f"port http ({port}) is taken" in view.status.message


async def test_a_stop_ends_the_whole_tree_even_daemons_that_ignore_it(tmp_path: Path) -> None:
    script = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 100' &); echo up; sleep 100"
    work = Supervised(tmp_path, new_run("sh", "-c", script))
    while len(work.left()) < 4:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    work.supervisor.stop()
    view = await work.ended()
    assert (view.status.state, view.status.HasField("exit_code")) == (CANCELLED, False)
    assert work.left() == []


async def test_a_task_that_heeds_sigterm_is_not_killed(tmp_path: Path) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done"
    work = Supervised(tmp_path, new_run("sh", "-c", script), stop_grace_s=20.0)
    while "up" not in (work.output() if work.log_dir.exists() else ""):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    work.supervisor.stop()
    await work.ended()
    assert "bye" in work.output()


async def test_what_a_task_leaves_behind_is_swept(tmp_path: Path) -> None:
    work = Supervised(tmp_path, new_run("sh", "-c", "setsid sleep 100 & exit 0"))
    assert (await work.ended()).status.state == SUCCEEDED
    assert work.left() == []


async def test_a_stop_while_it_waits_for_a_restart_cancels(tmp_path: Path) -> None:
    work = Supervised(tmp_path, new_run("false", max_restarts=100))
    await work.until(lambda view: view.status.restart_count >= 2)
    work.supervisor.stop()
    assert (await work.ended()).status.state == CANCELLED


async def test_the_time_limit_fails_the_task_and_says_so(tmp_path: Path) -> None:
    work = Supervised(tmp_path, new_run("sleep", "100", time_limit_ms=200, max_restarts=3))
    view = await work.ended()
    assert view.status.state == FAILED
    assert "time_limit_ms (200)" in view.status.message
    assert work.left() == []


async def test_a_task_that_takes_more_memory_than_it_asked_for_is_killed_and_told_so(tmp_path: Path) -> None:
    hog = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = b\\'1\\' * 90_000_000; input()'])"
    )
    run = new_run("sh", "-c", f'sleep 100 | python -c "{hog}"', max_restarts=0)
    run.task_group.resources.memory_mib = 64
    work = Supervised(tmp_path, run)
    view = await work.ended()
    assert view.status.state == FAILED
    assert re.fullmatch(r"memory limit \(64 MiB\) exceeded: it used \d+ MiB", view.status.message)
    assert work.left() == []


async def test_what_processes_share_counts_once(tmp_path: Path) -> None:
    script = (
        "import os, time; x = b'1' * 40_000_000\n"
        "for _ in range(3):\n    if not os.fork(): time.sleep(100)\n"
        "print('up', flush=True); time.sleep(2.5)\nos._exit(0)"
    )
    run = new_run("python", "-c", script)
    run.task_group.resources.memory_mib = 100
    assert (await Supervised(tmp_path, run).ended()).status.state == SUCCEEDED


async def test_energy_is_the_processor_time_of_the_tree_times_the_cores_power(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    work = Supervised(tmp_path, new_run("python", "-c", script), core_active_power_mw=100_000)
    joules = (await work.ended()).status.it_energy_uj // 1_000_000
    assert 50 <= joules <= 200  # half a second at 100 W, and what two interpreters take to start


async def test_energy_of_devices_counts_by_time(tmp_path: Path) -> None:
    work = Supervised(tmp_path, new_run("sleep", "0.2"), devices_active_power_mw=700_000_000, modelled_uj=7)
    assert (await work.ended()).status.it_energy_uj >= 7 + 100_000_000_000


def test_a_share_of_a_device_takes_its_share_of_the_power() -> None:
    accelerators = [
        Accelerator(kind="gpu", model="A", count=1, active_power_mw=100),
        Accelerator(kind="npu", model="B", count=2, active_power_mw=1000),
    ]
    run = new_run("true")
    run.allocation.devices.extend([DeviceShare(device_index=2, milli=500)])
    assert devices_active_power_mw(run, accelerators) == 500
    environment = environment_of(run, accelerators)
    assert (environment["MUMIAN_DEVICES"], environment["ASCEND_RT_VISIBLE_DEVICES"]) == ("2", "1")
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("entry_point", "exit_code", "said"),
    [
        ("jobs.work:hello", 0, "hello from the entry point"),
        ("jobs.work:fails", 1, "ValueError: on purpose"),
        ("jobs.work:absent", 127, "has no function absent"),
        ("jobs.none:hello", 127, "there is no module jobs.none"),
        ("jobs.imports_none:hello", 1, "No module named 'no_such_library'"),
        ("nonsense", 127, "must be package.module:function"),
    ],
)
async def test_an_entry_point_is_called_in_its_working_directory(
    tmp_path: Path, entry_point: str, exit_code: int, said: str
) -> None:
    package = tmp_path / "jobs"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "imports_none.py").write_text("import no_such_library\n")
    (package / "work.py").write_text(
        "def hello(): print('hello from the entry point')\ndef fails(): raise ValueError('on purpose')\n"
    )
    command = job_pb2.Command(entry_point=entry_point, working_directory=str(tmp_path))
    work = Supervised(tmp_path, new_run(command=command))
    view = await work.ended()
    assert view.status.exit_code == exit_code
    assert said in work.output() + work.output(log_files.STDERR)


async def test_followed_logs_hold_everything_once_and_end_with_the_task(tmp_path: Path) -> None:
    work = Supervised(tmp_path, new_run("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"))
    pieces = [p async for p in log_files.read(work.log_dir, 0, work.running.done, follow=True)]
    assert b"".join(piece.data for piece in pieces) == b"1\n2\n3\n"


async def test_a_tail_is_the_end_and_pieces_are_bounded(tmp_path: Path) -> None:
    (tmp_path / log_files.STDOUT).write_bytes(b"x" * 200_000 + b"end")
    tail = [p async for p in log_files.read(tmp_path, 3, lambda: True, follow=False)]
    assert [piece.data for piece in tail] == [b"end"]
    whole = [p async for p in log_files.read(tmp_path, 0, lambda: True, follow=False)]
    assert max(len(piece.data) for piece in whole) <= log_files.CHUNK_BYTES_MAX
    assert sum(len(piece.data) for piece in whole) == 200_003


def sizes_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


async def test_logs_that_grow_too_large_are_cut_and_readers_miss_nothing_of_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "STREAM_BYTES_MAX", 1000)
    out, ended = tmp_path / log_files.STDOUT, asyncio.Event()
    lines = [b"line %04d\n" % number for number in range(500)]
    followed: list[bytes] = []

    async def follow() -> None:
        async for piece in log_files.read(tmp_path, 0, ended.is_set, follow=True):
            followed.append(piece.data)

    with out.open("ab", buffering=0) as file:
        file.write(lines[0])
        following = asyncio.create_task(follow())
        for line in lines[1:]:
            file.write(line)
            log_files.rotate(tmp_path)
            await asyncio.sleep(0)
            if len(b"".join(followed)) < 9 * 1000:
                await asyncio.sleep(0.001)
    ended.set()
    await following
    sizes = sizes_in(tmp_path)
    assert sizes.keys() == {"stdout", "stdout.1"}
    assert max(sizes.values()) <= 1010
    read = b"".join(followed)
    assert read.startswith(b"".join(lines[:300])), "a reader that keeps pace misses nothing"
    kept = (tmp_path / "stdout.1").read_bytes() + out.read_bytes()
    assert b"".join(lines).endswith(kept)
    assert len(kept) >= 1000
    for tail_bytes in (50, 1005, 0, 10**6):
        tail = b"".join(
            [p.data async for p in log_files.read(tmp_path, tail_bytes, lambda: True, follow=False)]
        )
        assert tail == (kept[-tail_bytes:] if tail_bytes else kept)


async def test_a_task_whose_output_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    view = await Supervised(tmp_path, new_run("true")).ended()
    assert view.status.state == FAILED
    assert "its output cannot be written to" in view.status.message


def test_a_process_id_that_was_used_again_is_another_process() -> None:
    me = process_tree.ProcessId.of(os.getpid())
    assert me.process() is not None
    assert me._replace(created_s=me.created_s - 1).process() is None


async def test_the_task_of_another_attempt_is_left_alone(tmp_path: Path) -> None:
    run = new_run("sleep", "100")
    work = Supervised(tmp_path, run)
    await work.until(lambda view: view.status.state == RUNNING)
    async with asyncio.timeout(60):
        # The kernel shows a new program's environment a moment after its start is known.
        while not work.left():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    process_tree.sweep(None, run.allocation.id, attempt=2)
    assert len(work.left()) == 1
    work.supervisor.stop()
    await work.ended()


def niceness_of_session(pid: int) -> int | None:
    """Unset where the kernel does not group by session."""
    path = Path(f"/proc/{pid}/autogroup")
    return int(path.read_text().split()[-1]) if path.exists() else None


@pytest.mark.parametrize(
    ("kind", "promises", "niceness"),
    [(SERVICE, True, -10), (SERVICE, False, 0), (job_pb2.JOB_KIND_BATCH, False, 10)],
)
async def test_a_latency_promise_goes_before_services_and_those_before_batch(
    tmp_path: Path, kind: job_pb2.JobKind.ValueType, promises: bool, niceness: int
) -> None:
    """The niceness of a task, where this user may set it."""
    if os.geteuid() != 0 and niceness < os.getpriority(os.PRIO_PROCESS, 0):
        pytest.skip("this user may not lower a niceness")
    run = run_of("a", "sleep", "100", kind=kind)
    if promises:
        run.task_group.latency_slo.budget_us = 20_000
    supervised = Supervised(tmp_path, run)
    view = await supervised.until(lambda view: view.status.state == RUNNING)
    assert view.process is not None
    assert os.getpriority(os.PRIO_PROCESS, view.process.pid) == niceness
    assert niceness_of_session(view.process.pid) in (None, niceness)
    supervised.supervisor.stop()
    await supervised.ended()


def cut_off_run(stop_after_s: int, *argv: str) -> RunAllocation:
    """A task that must end when its site is cut off."""
    run = run_of(f"cut-{next(_numbers)}", *argv)
    run.on_disconnect.stop_after_s = stop_after_s
    return run


async def test_a_task_ends_by_itself_when_its_site_is_cut_off_for_too_long(tmp_path: Path) -> None:
    contact = Contact(tmp_path / "contact")
    contact.heard(now_ns())
    supervised = Supervised(tmp_path, cut_off_run(3600, "sleep", "100"))
    await supervised.until(lambda view: view.status.state == RUNNING)
    newest_ns = now_ns() - 3600 * 10**9
    # The newest contact is what was noted, not what this file said before.
    contact.path.write_text(contact.path.read_text().split()[0] + f" {newest_ns}")
    view = await supervised.until(lambda view: view.status.state == CANCELLED)
    assert view.status.cut_off
    assert "cut off" in view.status.message


async def test_a_task_is_not_even_started_when_its_site_has_been_cut_off_for_too_long(tmp_path: Path) -> None:
    Contact(tmp_path / "contact").heard(now_ns() - 3600 * 10**9)
    mark = tmp_path / "mark"
    supervised = Supervised(tmp_path, cut_off_run(3600, "touch", str(mark)))
    view = await supervised.until(lambda view: view.status.state == CANCELLED)
    assert (view.status.cut_off, mark.exists()) == (True, False)


async def test_a_contact_of_an_earlier_boot_says_nothing_and_an_old_one_changes_nothing(
    tmp_path: Path,
) -> None:
    contact = Contact(tmp_path / "contact")
    assert contact.last_ns() is None
    contact.heard(20)
    contact.heard(10)
    assert Contact(tmp_path / "contact").last_ns() == 20
    contact.path.write_text("another-boot 30")
    assert contact.last_ns() is None
