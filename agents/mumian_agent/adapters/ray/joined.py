"""A further machine of a site: its part of the site's Ray, kept as long as this process lives.

`mumian-agent node` runs it. When its Ray ends, or this process is told to stop, what tasks are left on this
machine are ended too: the agent of the site has had them placed elsewhere by then.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

import psutil
from ray._private.node import Node
from ray._private.parameter import RayParams

from mumian_agent.adapters.ray.settings import NODE_LABEL, temp_dir_of
from mumian_agent.runtime import process_tree

log = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 100_000_000
_LOOK_EVERY_S = 0.5
_END_WITHIN_S = 5.0


class _LeanNode(Node):
    """A node without the part for people who look at it."""

    def start_log_monitor(self) -> None:
        """No copies of the workers' output."""


class JoinedNode:
    """The raylet of this machine."""

    def __init__(self, head: str, name: str, host: str, num_cpus: int, state_dir: Path) -> None:
        """Join. Raises what Ray raises when the head does not answer, in its own words."""
        self._state_dir = state_dir
        parameters = RayParams(
            gcs_address=head,
            node_ip_address=host,
            dashboard_agent_listen_port=0,
            labels={NODE_LABEL: name},
            num_cpus=num_cpus,
            num_gpus=0,
            object_store_memory=_OBJECT_STORE_BYTES,
            temp_dir=str(temp_dir_of(state_dir)),
            include_dashboard=False,
        )
        self._node = _LeanNode(parameters, head=False, shutdown_at_exit=False, spawn_reaper=False)

    def keep(self, stop: threading.Event) -> bool:
        """Stay until asked to stop, or until Ray ends here; whether it was asked."""
        while not stop.wait(_LOOK_EVERY_S):
            if not self._node.remaining_processes_alive():  # type: ignore[no-untyped-call]
                return False
        return True

    def end(self) -> None:
        """End Ray here, and the tasks that are left."""
        self._node.kill_all_processes(check_alive=False, allow_graceful=True)
        left = process_tree.all_members(self._state_dir)
        # A runner that outlives its raylet for a moment would tell that its task has failed by itself.
        process_tree.send(_runners_of(left), signal.SIGKILL)
        process_tree.send(left, signal.SIGTERM)
        psutil.wait_procs(left, timeout=_END_WITHIN_S)
        while left := process_tree.all_members(self._state_dir):
            log.warning("%d processes of tasks are killed", len(left))
            process_tree.send(left, signal.SIGKILL)
            psutil.wait_procs(left, timeout=1.0)


def _runners_of(tasks: Iterable[psutil.Process]) -> list[psutil.Process]:
    found = {}
    for task in tasks:
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = task.parent()
            if parent is not None and parent.name().startswith("ray::"):
                found[parent.pid] = parent
    return list(found.values())
