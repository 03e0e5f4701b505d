"""Containers: a scripted engine stands in the place of a real one, and does what its command line says."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from mumian.agent.v1.agent_pb2 import RunAllocation
from mumian.api.v1.job_pb2 import Command, CommandCheck, HealthCheck
from mumian_agent.runtime import container
from mumian_agent.runtime.environment import environment_of

from tests.agent.test_supervisor import (
    AUTO,
    CANCELLED,
    FAILED,
    RUNNING,
    SERVICE,
    SUCCEEDED,
    Supervised,
    new_run,
)

# Runs what comes after the image on this machine; remembers its containers in a folder.
ENGINE = r"""#!/bin/sh
echo "$@" >> "{folder}/calls"
case "$1" in
  version) echo 4.3.1 ;;
  rm) rm -f "{folder}/container" ;;
  exec) shift 2; exec "$@" ;;
  run) while [ "$1" != image ]; do [ "$1" = --name ] && echo "$2" > "{folder}/container"; shift; done
       shift; exec "$@" ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path) -> str:
    """The path of the scripted engine."""
    path = tmp_path / "podman"
    path.write_text(ENGINE.replace("{folder}", str(tmp_path)))
    path.chmod(0o755)
    return str(path)


def run_image(*argv: str, **more: object) -> RunAllocation:
    """A task whose container runs a command."""
    run = new_run(command=Command(argv=argv, image="image", environment={"SECRET": "hidden"}), **more)
    run.task_group.resources.cpu_milli, run.task_group.resources.memory_mib = 1500, 512
    return run


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


async def test_a_container_runs_with_its_limits_and_environment_and_no_value_on_the_command_line(
    tmp_path: Path, engine: str
) -> None:
    run = run_image("sh", "-c", "echo $SECRET")
    work = Supervised(tmp_path, run, engine=engine, own_folder="/state/work/a")
    assert (await work.ended()).status.state == SUCCEEDED
    assert work.output() == "hidden\n"
    before, started, after = calls(tmp_path)
    name = container.name_of(work.task.key)
    assert before == after == f"rm --force {name}"
    assert started.startswith(f"run --rm --init --name {name} --network host")
    for option in (
        "--cpus 1.5 --memory 512m --memory-swap 512m",
        "--volume /state/work/a:/work --workdir /work/",
        "--env MUMIAN_JOB_ID",
        "--env SECRET",
    ):
        assert option in started
    assert "hidden" not in started.replace("echo", "")
    assert "--env PATH" not in started


async def test_a_cancelled_container_is_gone_and_its_exit_code_is_the_tasks(
    tmp_path: Path, engine: str
) -> None:
    work = Supervised(tmp_path, run_image("sleep", "100"), engine=engine)
    await work.until(lambda view: view.status.state == RUNNING)
    work.supervisor.stop()
    assert (await work.ended()).status.state == CANCELLED
    assert calls(tmp_path)[-1].startswith("rm --force")
    assert work.left() == []
    failed = await Supervised(tmp_path / "other", run_image("sh", "-c", "exit 5"), engine=engine).ended()
    assert (failed.status.state, failed.status.exit_code) == (FAILED, 5)


async def test_a_health_command_is_run_inside(tmp_path: Path, engine: str) -> None:
    check = HealthCheck(command=CommandCheck(argv=["true"]))
    run = run_image("sleep", "100", kind=SERVICE, ports=[AUTO], health_check=check)
    work = Supervised(tmp_path, run, engine=engine)
    await work.until(lambda view: view.status.state == RUNNING)
    assert f"exec {container.name_of(work.task.key)} true" in calls(tmp_path)
    work.supervisor.stop()
    await work.ended()


async def test_where_there_is_no_engine_the_refusal_says_what_to_do(tmp_path: Path) -> None:
    view = await Supervised(tmp_path, run_image("true")).ended()
    assert view.status.state == FAILED
    assert "no container engine; install podman or docker" in view.status.message


def test_an_engine_is_found_and_one_that_does_not_work_says_why(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = container.find(engine)
    assert str(found) == "podman 4.3.1"
    (tmp_path / "docker").write_text("#!/bin/sh\necho Cannot connect to the daemon >&2; exit 1\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "podman").unlink()
    assert container.find("auto") == (
        None,
        "podman is not installed; docker does not work: Cannot connect to the daemon",
    )
    assert container.find("none")[0] is None


@pytest.mark.skipif(shutil.which("docker") is None, reason="Docker's client is not installed")
def test_dockers_own_client_takes_the_command_line() -> None:
    """Without a server it gets no further than that, but it has read every option by then."""
    run = run_image("true")
    run.task_group.command.working_directory = "in"
    docker = shutil.which("docker")
    assert docker is not None
    argv = container.argv_of(docker, run, environment_of(run, ()), "/state/work/a")
    nowhere = {**os.environ, "DOCKER_HOST": "unix:///nonexistent.sock"}
    said = subprocess.run(argv, capture_output=True, text=True, env=nowhere, timeout=60, check=False).stderr
    assert "unknown flag" not in said
    assert "invalid" not in said
    assert "nonexistent.sock" in said
