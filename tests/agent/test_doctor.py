"""What `mumian-agent doctor` finds on a real machine, and what is broken for it."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest
import yaml
from mumian.api.v1.ops_service_pb2 import FINDING_STATE_FAIL, FINDING_STATE_OK, FINDING_STATE_WARN
from mumian_agent.domain.config import NodeConfig
from mumian_agent.main.config_file import load
from mumian_agent.main.doctor import command, devices, machine, site
from mumian_agent.runtime.accelerators.inspector import Inspector
from mumian_orchestrator.main.free_ports import free_port

from tests.agent.test_local import desk_of
from tests.processes import SCRIPTS


def config_file(folder: Path, **fields: object) -> Path:
    """A site whose coordinator is not there."""
    file = folder / "site.yaml"
    about = {"id": "gz", "operator_id": "op", "tier": "edge", "jurisdiction": "CN", "pue": {"average": 1.2}}
    whole = {
        "site": about,
        "coordinator": f"127.0.0.1:{free_port()}",
        "state_dir": str(folder / "state"),
        "reflector": {"listen": f"127.0.0.1:{free_port()}"},
        **fields,
    }
    file.write_text(yaml.safe_dump(whole))
    return file


def doctor(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPTS / "mumian-agent"), "doctor", *argv],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.ray
async def test_a_site_without_its_coordinator_is_told_what_works_what_fails_and_what_to_do(
    tmp_path: Path,
) -> None:
    done = doctor("--config", str(config_file(tmp_path)), "-o", "json")
    found = {each["check"]: each for each in json.loads(done.stdout)["findings"]}
    assert done.returncode == 1
    assert found["ray"]["state"] == "FINDING_STATE_OK"
    assert found["disk"]["state"] == "FINDING_STATE_OK"
    assert found["coordinator"]["state"] == "FINDING_STATE_FAIL"
    assert "connection refused" in found["coordinator"]["message"]
    assert "firewall" in found["coordinator"]["advice"]
    assert not (tmp_path / "state").exists(), "it changes nothing"


def test_a_wrong_configuration_is_told_as_such_by_the_exit_code(tmp_path: Path) -> None:
    done = doctor("--config", str(config_file(tmp_path, warm="yes")))
    assert done.returncode == 2
    assert "warm is unknown" in done.stderr


def test_a_state_folder_that_cannot_be_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = machine.disk(tmp_path / "file" / "state")
    assert found.state == FINDING_STATE_FAIL
    assert "cannot be written" in found.message


def test_a_port_that_is_taken_is_found(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probes,
        socket.create_server(("127.0.0.1", 0)) as tcp,
    ):
        probes.bind(("127.0.0.1", 0))
        udp, tcp_port = probes.getsockname()[1], tcp.getsockname()[1]
        taken = config_file(
            tmp_path,
            reflector={"listen": f"127.0.0.1:{udp}"},
            ray={"listen": f"127.0.0.1:{tcp_port}"},
        )
        found = list(site.ports(load(taken)))
    assert [(each.check, each.state) for each in found] == [
        ("reflector", FINDING_STATE_FAIL),
        ("reflector.grpc", FINDING_STATE_OK),
        ("ray.listen", FINDING_STATE_FAIL),
    ]


def test_a_driver_that_hangs_and_a_model_that_nobody_knows_are_found() -> None:
    known, new = "NVIDIA H100 80GB HBM3", "Lisuan 7G106"
    prints = json.dumps([{"kind": "gpu", "product": product} for product in (known, new)])
    argv = {"new": ["echo", prints], "hangs": ["sleep", "60"]}
    inspector = Inspector(["new", "hangs"], argv.__getitem__, within_s=2.0)
    hangs, with_figures, without = devices.accelerators(NodeConfig(), inspector)
    assert hangs.state == FINDING_STATE_FAIL
    assert "hangs has not answered within 2 s" in hangs.message
    assert with_figures.state == FINDING_STATE_OK
    assert without.state == FINDING_STATE_WARN
    assert "without figures" in without.message


async def test_an_agent_that_runs_is_not_disturbed(tmp_path: Path) -> None:
    config = load(config_file(tmp_path, state_dir=str(tmp_path)))
    async with desk_of(tmp_path):
        found = {each.check: each async for each in command.findings(config)}
    assert "was heard 90" in found["agent"].message
    assert found["agent"].state == FINDING_STATE_WARN
    assert not {"ray", "reflector"} & found.keys(), "its ports are its own, and it has a Ray"
