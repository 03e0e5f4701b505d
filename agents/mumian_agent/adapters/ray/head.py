"""`python -m mumian_agent.adapters.ray.head` starts a site's Ray, prints its address and leaves it running.

`ray start --head` would do, but it also starts a dashboard, a log monitor and an autoscaler: three Python
processes of no use to a site. Ray's own process API, of the one version that is pinned, is told not to.
"""

from __future__ import annotations

import os
import sys

from ray._private.node import Node
from ray._private.parameter import RayParams

from mumian_agent.adapters.ray.settings import NODE_LABEL, OWN_NODE

_OBJECT_STORE_BYTES = 100_000_000


class _LeanHead(Node):
    """A head node without the parts for people who look at it."""

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """No dashboard."""

    def start_log_monitor(self) -> None:
        """No copies of the workers' output."""


def start(num_cpus: int, temp_dir: str, host: str, port: int) -> str:
    """Start the processes; the address of the new cluster as host:port. Port 0: any that is free."""
    parameters = RayParams(
        node_ip_address=host,
        gcs_server_port=port,
        labels={NODE_LABEL: OWN_NODE},
        dashboard_agent_listen_port=0,
        num_cpus=num_cpus,
        num_gpus=0,
        object_store_memory=_OBJECT_STORE_BYTES,
        temp_dir=temp_dir,
        include_dashboard=False,
        no_monitor=True,
    )
    return str(_LeanHead(parameters, head=True, shutdown_at_exit=False, spawn_reaper=False).address)


if __name__ == "__main__":
    print(start(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])), flush=True)
    # No exit handlers: what was started is to stay.
    os._exit(0)
