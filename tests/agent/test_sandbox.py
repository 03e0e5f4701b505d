"""What a task cannot see of its node: real namespaces, real mounts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from hypothesis import strategies as st
from mumian.api.v1.job_pb2 import CommandCheck, HealthCheck
from mumian_agent.runtime import sandbox

from tests.agent.scripted_coordinator import run_of
from tests.agent.test_supervisor import FAILED, RUNNING, SERVICE, Supervised

WHY_NOT = sandbox.why_not("auto", [Path("/sys")])
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
PATH = {"PATH": os.environ["PATH"]}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The folder of an agent, with what is nobody's business, and the folders of two tasks."""
    folder = tmp_path / "agent"
    for task in ("mine", "other"):
        (folder / "work" / task).mkdir(parents=True)
        (folder / "work" / task / "data").write_text(f"of {task}\n")
    (folder / "ray.token").write_text("secret\n")
    return folder


def run(kept: Path, script: str, environment: Mapping[str, str] = PATH) -> subprocess.CompletedProcess[str]:
    """A script of a task that has the folder `mine`."""
    own = str(kept / "work" / "mine")
    argv = sandbox.argv_of(["sh", "-c", script], environment, [str(kept)], own, own)
    done = subprocess.run(
        argv, env=sandbox.environment_of(environment), cwd=own, capture_output=True, check=False
    )
    return subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())


async def written(supervised: Supervised, words: str) -> None:
    """It runs as soon as it is started; what it writes comes later."""
    async with asyncio.timeout(60):
        while supervised.output() != words:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def test_a_task_sees_its_own_folder_and_nothing_else_of_the_agents(kept: Path) -> None:
    done = run(kept, f"cat data; echo new > left; ls -A .. {kept}; cat {kept}/ray.token ../other/data")
    assert done.stdout.splitlines() == ["of mine", "..:", "mine", "", f"{kept}:", "work"]
    assert "secret" not in done.stdout
    assert (kept / "work" / "mine" / "left").read_text() == "new\n"


@pytest.mark.parametrize(
    "trick",
    [
        "umount {kept}",
        "umount -l {kept}",
        "mount -t tmpfs none {kept}",
        "unshare --user --map-root-user --mount umount {kept}",
        "unshare --user --map-current-user --keep-caps --mount umount -l {kept}",
        "nsenter --mount --target 1 true",
        "nsenter --user --mount --target {agent} true",
        "ls /proc/{agent}/root{kept}",
        "cat /proc/{agent}/environ",
    ],
)
def test_a_task_does_not_get_back_what_is_hidden(kept: Path, trick: str) -> None:
    words = trick.format(kept=kept, agent=os.getpid())
    done = run(kept, f"{words} 2>&1 && echo did it; cat {kept}/ray.token")
    assert "did it" not in done.stdout
    assert "secret" not in done.stdout


def test_a_task_does_not_read_the_environment_of_another(kept: Path) -> None:
    environment = {**PATH, "DATABASE_PASSWORD": "hidden"}
    own = str(kept / "work" / "other")
    argv = sandbox.argv_of(["sh", "-c", "echo here; exec sleep 60"], environment, [str(kept)], own, own)
    with subprocess.Popen(argv, env=sandbox.environment_of(environment), stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"here\n"
        try:
            done = run(kept, f"cat /proc/{other.pid}/environ; cat /proc/{other.pid}/cwd/data")
        finally:
            other.kill()
    assert done.stdout == ""
    assert done.stderr.count("Permission denied") == 2


names = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("PATH", "_", "IFS")
)
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@given(st.dictionaries(names, values, max_size=4))
@settings(max_examples=15, suppress_health_check=[Check.function_scoped_fixture])
def test_a_tasks_variables_reach_it_as_they_are(kept: Path, variables: dict[str, str]) -> None:
    variables = {f"X{name}": value for name, value in variables.items()}
    shown = run(kept, "env -0", {**PATH, **variables}).stdout.split("\0")
    assert {
        name: value for name, _, value in (each.partition("=") for each in shown) if name in variables
    } == variables
    assert not any(each.startswith("MUMIAN_LATER_") for each in shown)


def test_what_a_tasks_variables_load_is_loaded_in_its_place_only(kept: Path) -> None:
    """A function for the shell that stands for `mount`, and a library for every program."""
    functions = {"BASH_FUNC_mount%%": "() { :; }", "BASH_FUNC_cd%%": "() { :; }"}
    environment = {**PATH, "LD_PRELOAD": "/nowhere/evil.so", "ENV": "/nowhere/evil.sh"}
    first = sandbox.environment_of({**environment, **functions})
    assert all(name == "PATH" or name.startswith("MUMIAN_LATER_") for name in first)
    done = run(kept, f"cat {kept}/ray.token; :", environment)
    assert "secret" not in done.stdout
    # The loader complains for each program into which it is to load the library: those of the task's alone.
    assert done.stderr.count("/nowhere/evil.so") == 2


async def test_a_supervised_task_and_its_health_check_are_kept_from_the_agents_folder(
    tmp_path: Path, kept: Path
) -> None:
    look = ["sh", "-c", f"test ! -e {kept}/ray.token && cat data"]
    supervised = Supervised(
        tmp_path,
        run_of(
            "j.main.0",
            *("sh", "-c", f"{look[2]}; sleep 100"),
            kind=SERVICE,
            health_check=HealthCheck(command=CommandCheck(argv=look), interval_ms=50),
        ),
        own_folder=str(kept / "work" / "mine"),
        hidden=(str(kept),),
    )
    await supervised.until(lambda view: view.status.state == RUNNING)
    await written(supervised, "of mine\n")
    supervised.supervisor.stop()
    await supervised.ended()


async def test_a_command_that_is_not_there_is_told_as_without_a_sandbox(tmp_path: Path, kept: Path) -> None:
    told = []
    for hidden in ((), (str(kept),)):
        view = await Supervised(tmp_path, run_of("j.main.0", "no-such-command"), hidden=hidden).ended()
        assert view.status.state == FAILED
        told.append((view.status.message, view.status.exit_code))
    assert told[0] == told[1]


async def test_a_stopped_task_ends_by_its_signal(tmp_path: Path, kept: Path) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    supervised = Supervised(
        tmp_path, run_of("j.main.0", "sh", "-c", script), hidden=(str(kept),), stop_grace_s=30.0
    )
    await supervised.until(lambda view: view.status.state == RUNNING)
    await written(supervised, "up\n")
    supervised.supervisor.stop()
    await supervised.ended()
    assert supervised.output().splitlines() == ["up", "bye"]


def test_where_the_tasks_python_lies_in_what_is_hidden_nothing_is(tmp_path: Path) -> None:
    assert str(sys.prefix) in sandbox.why_not("auto", [Path(sys.prefix).parent])
    assert sandbox.why_not("none", [tmp_path]) == "the node's configuration wants none"


async def test_a_task_is_said_to_run_when_it_does_not_while_its_sandbox_is_made(
    tmp_path: Path, kept: Path
) -> None:
    supervised = Supervised(tmp_path, run_of("j.main.0", "sleep", "100"), hidden=(str(kept),))
    view = await supervised.until(lambda view: view.status.state == RUNNING)
    assert view.process is not None
    assert psutil.Process(view.process.pid).cmdline() == ["sleep", "100"]
    supervised.supervisor.stop()
    await supervised.ended()
