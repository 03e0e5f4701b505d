"""How a site's own Ray is set up. Ray reads its environment when it is imported, so this comes before."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

NAMESPACE = "mumian"
# Ray's label of a node with the name that the site knows it by.
NODE_LABEL = "mumian.dev/node"
OWN_NODE = "n1"
# Where a node is in its site, where the machine itself does not say it.
SWITCH_LABEL, RACK_LABEL = "mumian.dev/switch", "mumian.dev/rack"
# In the environment of a node's Ray, and so of its workers: where its configuration is. Where its state is,
# see `process_tree.NODE_VARIABLE`.
NODE_CONFIG_VARIABLE = "MUMIAN_NODE_CONFIG"


def temp_dir_of(state_dir: Path) -> Path:
    """Where this site's Ray keeps its sockets: short, for a socket's path must not exceed 107 bytes."""
    return Path("/tmp") / f"mumian-{hashlib.sha256(str(state_dir).encode()).hexdigest()[:8]}"


def own_token(state_dir: Path) -> Path:
    """The file with the token of the site's own Ray, made when it is not there."""
    token_file = state_dir / "ray.token"
    if not token_file.exists():
        token_file.touch(mode=0o600)
        token_file.write_text(secrets.token_hex(32))
    return token_file


def prepare_environment(token_file: Path) -> None:
    """Set this process, and what it starts, to the site's Ray. To be called before Ray is imported."""
    os.environ.update(
        {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token_file),
            "RAY_USAGE_STATS_ENABLED": "0",
            # The switch that makes Ray take the loopback for its own address, whatever its name says.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            # The runners are all the workers there are; Ray's own guesses would only cost start-up time.
            "RAY_enable_worker_prestart": "0",
            "RAY_prestart_worker_first_driver": "0",
            "RAY_enable_metrics_collection": "0",
            # A node that is gone is known to be so within seconds, and one that cannot reach the others ends.
            "RAY_health_check_initial_delay_ms": "2000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "4",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
            # Its memory monitor kills workers for what other processes of the machine use.
            "RAY_memory_monitor_refresh_ms": "0",
        }
    )
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
        os.environ.pop(name, None)
