"""Containers: the command line of the node's engine that runs a task, and what is left of it removed.

The engine's client runs as the task's process: its signals reach the container, whose output it
is. The container shares the node's network, so a service listens as any other.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from mumian.agent.v1.agent_pb2 import RunAllocation

from mumian_agent.domain.allocation import AllocationKey, key_of

log = logging.getLogger(__name__)

KINDS = ("podman", "docker")
_ANSWER_WITHIN_S = 10.0
_WORK = "/work"
# What names things of the node that the container has its own of.
_NODES_OWN = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LD_LIBRARY_PATH"})


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that works."""

    kind: str  # of KINDS
    path: str
    version: str

    def __str__(self) -> str:
        return f"{self.kind} {self.version}"


def find(wanted: str) -> tuple[Engine | None, str]:
    """The engine of this node, and why there is none.

    Args:
        wanted: "auto": the first of KINDS that works; "none"; or the path of one, or its name.
    """
    if wanted == "none":
        return None, "the site's configuration wants none"
    reasons = []
    for name in KINDS if wanted == "auto" else (wanted,):
        path = shutil.which(name)
        if path is None:
            reasons.append(f"{name} is not installed")
            continue
        kind = "docker" if "docker" in path.rpartition("/")[2] else "podman"
        # Docker's client alone runs nothing: its server has to answer.
        field = "{{.Server.Version}}" if kind == "docker" else "{{.Client.Version}}"
        try:
            asked = subprocess.run(
                [path, "version", "--format", field],
                capture_output=True,
                text=True,
                timeout=_ANSWER_WITHIN_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(f"{name} does not answer: {error}")
            continue
        if asked.returncode == 0 and asked.stdout.strip():
            return Engine(kind, path, asked.stdout.strip()), ""
        said = (asked.stderr.strip().splitlines() or ["says nothing"])[-1]
        reasons.append(f"{name} does not work: {said}")
    return None, "; ".join(reasons)


def name_of(key: AllocationKey) -> str:
    """The container of an attempt: the same after a restart of the agent."""
    return f"mumian-{hashlib.sha256(str(key).encode()).hexdigest()[:24]}"


def argv_of(engine: str, run: RunAllocation, variables: Iterable[str], own_folder: str) -> list[str]:
    """What runs a task's image.

    Args:
        engine: path of the engine's client.
        variables: names of those of the task's environment, which the client itself has: no value stands in
            a command line, where everybody on the node could read it.
        own_folder: the task's, mounted at /work; empty: it has none.
    """
    command, resources = run.task_group.command, run.task_group.resources
    options = ["--rm", "--init", "--name", name_of(key_of(run)), "--network", "host"]
    options += ["--security-opt", "no-new-privileges"]
    if resources.cpu_milli:
        options += ["--cpus", f"{resources.cpu_milli / 1000:g}"]
    if resources.memory_mib:
        limit = f"{resources.memory_mib}m"
        options += ["--memory", limit, "--memory-swap", limit]
    if own_folder:
        options += ["--volume", f"{own_folder}:{_WORK}", "--workdir", f"{_WORK}/{command.working_directory}"]
    elif command.working_directory:
        options += ["--workdir", command.working_directory]
    for name in sorted(set(variables) - _NODES_OWN):
        options += ["--env", name]
    return [engine, "run", *options, command.image, *command.argv]


def inside(engine: str, run: RunAllocation, argv: Iterable[str]) -> list[str]:
    """What runs a command in a task's container."""
    return [engine, "exec", name_of(key_of(run)), *argv]


def remove(engine: str, key: AllocationKey) -> None:
    """End an attempt's container, if there is one: killing the client leaves it to its engine."""
    try:
        subprocess.run(
            [engine, "rm", "--force", name_of(key)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("container of %s may be left: %s", key, error)
