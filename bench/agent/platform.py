"""A platform on this machine with so and so many zones, whose reflectors count what they are asked."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
from mumian_agent.domain.probe_packet import PACKET_BYTES, answer_to
from mumian_orchestrator.main.embedded import has_ready_line, start_etcd, start_script
from mumian_orchestrator.main.free_ports import free_port
from mumian_orchestrator.main.local_processes import LocalProcesses

_AGENT_READY_WITHIN_S = 180.0
_SITE = {
    "id": "bench",
    "operator_id": "self",
    "tier": "edge",
    "jurisdiction": "CN",
    "pue": {"average": 1.2},
}


class CountingReflector:
    """Answers every probe, however many, for all zones."""

    def __init__(self) -> None:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.packets = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            datagram, sender = self._socket.recvfrom(PACKET_BYTES + 1)
            self.packets += 1
            if (answer := answer_to(datagram)) is not None:
                self._socket.sendto(answer, sender)


@dataclass(frozen=True, slots=True)
class Platform:
    """One that is up."""

    address: str
    agent: psutil.Process
    reflector: CountingReflector


@contextlib.contextmanager
def platform(zones: int, agent_script: Path) -> Iterator[Platform]:
    """Real etcd, coordinator and agent, with the settings that they have by default; gone afterwards.

    Args:
        zones: so many that the agent probes.
        agent_script: `mumian-agent` of the environment whose libraries count as the agent's.
    """
    folder = Path(tempfile.mkdtemp(prefix="mumian-bench-"))
    processes, reflector, address = LocalProcesses(folder), CountingReflector(), f"127.0.0.1:{free_port()}"
    named = [{"id": f"zone-{number}", "reflector": reflector.address} for number in range(zones)]
    try:
        coordinator = {"listen": address, "etcd": start_etcd(processes, folder), "zones": named}
        site = {
            "site": _SITE,
            "node": {"others": "ignore"},
            "coordinator": address,
            "state_dir": str(folder / "agent"),
            "reflector": {"listen": f"127.0.0.1:{free_port()}"},
        }
        for name, content in (("coordinator", coordinator), ("agent", site)):
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        start_script(processes, "coordinator", "mumian-coordinator", "--config", f"{folder}/coordinator.yaml")
        run_agent = [str(agent_script), "run", "--config", f"{folder}/agent.yaml"]
        processes.start("agent", run_agent, has_ready_line, _AGENT_READY_WITHIN_S)
        records = json.loads((folder / "processes.json").read_text())
        pid = next(record["pid"] for record in records if record["name"] == "agent")
        yield Platform(address, psutil.Process(pid), reflector)
    finally:
        processes.stop_all()
        shutil.rmtree(folder, ignore_errors=True)
