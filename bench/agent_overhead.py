"""What a site's agent itself takes beside its Ray: `python -m bench.agent_overhead`.

The whole platform is started on this machine, with nothing to do but its own reports and probes. Processor
time and resident memory are those of the agent's process alone, by the kernel's account: Ray's processes and
the coordinator are not in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil
from mumian_orchestrator.main.embedded import free_port

_MUMIAN = Path(sys.executable).parent / "mumian"
_SETTLED_AFTER_S = 5.0
_MIB = 1024 * 1024


@click.command()
@click.option("--seconds", type=click.FloatRange(1, 600), default=30.0, show_default=True)
def agent_overhead(seconds: float) -> None:
    """Thousandths of a core and MiB of one agent; one line `name value unit` each."""
    with tempfile.TemporaryDirectory(prefix="mumian-bench-") as folder:
        environment = {**os.environ, "MUMIAN_STATE_DIR": folder}
        listen = f"127.0.0.1:{free_port()}"
        try:
            subprocess.run(
                [_MUMIAN, "up", "--listen", listen], env=environment, check=True, stdout=subprocess.DEVNULL
            )
            _measure(_agent_of(Path(folder)), seconds)
        finally:
            subprocess.run([_MUMIAN, "down"], env=environment, check=False, stdout=subprocess.DEVNULL)


def _agent_of(state_dir: Path) -> psutil.Process:
    records = json.loads((state_dir / "processes.json").read_text())
    return psutil.Process(next(record["pid"] for record in records if record["name"] == "agent"))


def _measure(agent: psutil.Process, seconds: float) -> None:
    time.sleep(_SETTLED_AFTER_S)
    before, begun_s = agent.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after, took_s = agent.cpu_times(), time.monotonic() - begun_s
    user_s, system_s = after.user - before.user, after.system - before.system
    print(f"agent_cpu {(user_s + system_s) / took_s * 1000:.1f} milli-CPU")
    print(f"agent_cpu_system {system_s / took_s * 1000:.1f} milli-CPU")
    print(f"agent_rss {agent.memory_info().rss / _MIB:.0f} MiB")
    print(f"agent_threads {agent.num_threads()} threads")


if __name__ == "__main__":
    agent_overhead()
