"""`mumian up` and `down` as a user runs them: everything, or nothing at all."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mumian_orchestrator.main.free_ports import free_port

from tests.processes import SCRIPTS, the_process

PARTS = ["etcd", "coordinator", "reflector", "agent"]
WITHIN_S = 60.0


class Machine:
    """A state folder and an address of its own on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "state"
        # A file of the user's that is named like one of Python's own: once the site's Ray took it for that.
        self._current = folder / "current"
        self._current.mkdir()
        (self._current / "glob.py").write_text("raise SystemExit('a file of the current folder was run')")
        self.address = f"127.0.0.1:{free_port()}"
        self._environment = {
            **os.environ,
            "MUMIAN_STATE_DIR": str(self.folder),
            "MUMIAN_COORDINATOR": self.address,
        }

    def start(self, *argv: str, program: str = "mumian") -> subprocess.Popen[str]:
        """A command line that goes on."""
        return subprocess.Popen(
            [str(SCRIPTS / program), *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._current,
            env=self._environment,
        )

    def run(self, *argv: str, program: str = "mumian") -> subprocess.CompletedProcess[str]:
        """A command line to its end."""
        process = self.start(*argv, program=program)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def json(self, *argv: str) -> Any:
        """What a command line that succeeds gives to programs."""
        done = self.run("-o", "json", *argv)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def up(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--listen", self.address, *argv)

    def processes(self) -> list[psutil.Process]:
        """All that has to do with the folder: by its command, its environment or where it writes."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and (
                    str(self.folder) in " ".join(process.cmdline())
                    or f"MUMIAN_STARTED_IN={self.folder}" in Path(f"/proc/{process.pid}/environ").read_text()
                    or str(Path(f"/proc/{process.pid}/fd/1").readlink()).startswith(str(self.folder))
                ):
                    found.append(process)
            except (OSError, psutil.Error):
                continue
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Nothing runs on it; whatever the test did, nothing does afterwards."""
    made = Machine(tmp_path)
    yield made
    made.run("down")
    assert made.processes() == []


def refusal(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    """The exit code, the reason and the message of a command line with `-o json` that failed."""
    assert done.stdout == ""
    error = json.loads(done.stderr)["error"]
    return done.returncode, error["reason"], error["message"]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("listen", "files", "code", "told"),
    [
        ("nowhere", {}, (2, "INVALID_FIELD"), "--listen ('nowhere') must be host:port"),
        (None, {"site.yaml": "site: ["}, (2, "INVALID_FIELD"), "site.yaml is no YAML"),
        (None, {"site.yaml": ""}, (2, "INVALID_FIELD"), "says nothing; remove it"),
        (None, {"processes.json": "{"}, (4, "START_FAILED"), "processes.json is damaged"),
    ],
)
def test_what_up_can_see_to_be_wrong_is_refused_before_anything_starts(
    machine: Machine, listen: str | None, files: dict[str, str], code: tuple[int, str], told: str
) -> None:
    for name, text in files.items():
        write(machine.folder / name, text)
    done = machine.run("-o", "json", "up", "--listen", listen or machine.address)
    assert refusal(done)[:2] == code
    assert told in refusal(done)[2]
    assert machine.processes() == []


def test_a_state_folder_that_cannot_be_made_is_refused(machine: Machine) -> None:
    done = machine.up("-o", "json", "--state-dir", "/proc/nowhere")
    assert refusal(done)[:2] == (2, "INVALID_FIELD")
    assert "state_dir (/proc/nowhere) cannot be used" in refusal(done)[2]


@pytest.mark.etcd
def test_when_a_part_does_not_start_the_parts_before_it_are_stopped(machine: Machine) -> None:
    write(machine.folder / "site.yaml", "site: {id: 5}\n")
    code, reason, message = refusal(machine.up("-o", "json"))
    assert (code, reason) == (4, "START_FAILED")
    assert "agent ended with status 2" in message
    assert "site.id (5) must be a text" in message
    assert machine.processes() == []


@pytest.mark.etcd
def test_broken_off_up_leaves_nothing_running(machine: Machine) -> None:
    starting = machine.start("up", "--listen", machine.address)
    deadline_s = time.monotonic() + WITHIN_S
    while not (machine.folder / "coordinator.log").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    elsewhere = machine.run("-o", "json", "down")
    assert refusal(elsewhere)[:2] == (4, "START_FAILED")
    assert "being started or stopped by another process" in refusal(elsewhere)[2]
    starting.send_signal(signal.SIGINT)
    out, err = starting.communicate(timeout=60)
    assert (starting.returncode, out) == (130, "")
    assert err.strip() == "interrupted; stopping what was started"
    assert machine.processes() == []


@pytest.mark.e2e
@pytest.mark.etcd
@pytest.mark.ray
def test_up_runs_jobs_keeps_them_over_a_restart_and_down_stops_what_is_left_of_a_dead_agent(
    machine: Machine, tmp_path: Path
) -> None:
    assert machine.json("up", "--listen", machine.address)["processes"] == PARTS
    again = machine.json("up", "--listen", machine.address)
    assert (again["started"], again["processes"]) == (False, PARTS)
    write(tmp_path / "hello.yaml", "command: echo hello\n")
    write(tmp_path / "stays.yaml", "command: sleep 1000\nresources: {cpu: 0.1}\n")
    hello = machine.json("submit", "--wait", str(tmp_path / "hello.yaml"))
    assert hello["state"] == "JOB_STATE_SUCCEEDED"
    assert machine.run("logs", hello["id"]).stdout == "hello\n"
    stays = machine.json("submit", str(tmp_path / "stays.yaml"))
    assert stays["state"] == "JOB_STATE_RUNNING"
    config = ("--config", str(machine.folder / "coordinator.yaml"))
    told = machine.run("decisions", "explain", stays["id"], *config, program="mumian-coordinator").stdout
    assert "the same, bit for bit" in told
    assert re.search(r"▶ +local .* CHOSEN", told)

    agent = the_process(p for p in machine.processes() if "mumian-agent run" in " ".join(p.cmdline()))
    assert agent is not None
    agent.kill()
    agent.wait(10)
    code, reason, message = refusal(machine.run("-o", "json", "up"))
    assert (code, reason) == (4, "START_FAILED")
    assert "without agent" in message
    assert machine.processes(), "its Ray and its task outlive it"
    assert machine.json("down")["stopped"] == ["reflector", "coordinator", "etcd"]
    assert machine.processes() == []
    assert machine.json("down")["stopped"] == []

    assert machine.up().returncode == 0
    jobs = {job["id"]: job["state"] for job in machine.json("jobs")["jobs"]}
    assert set(jobs) == {hello["id"], stays["id"]}
    assert jobs[hello["id"]] == "JOB_STATE_SUCCEEDED"
