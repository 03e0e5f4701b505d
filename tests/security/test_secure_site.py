"""A real site with a real Ray joins a platform with TLS, works for a tenant, and is thrown out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mumian_orchestrator.main.free_ports import free_port

from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.conftest import etcd_endpoint as etcd_endpoint
from tests.processes import SCRIPTS, Running

pytestmark = [pytest.mark.etcd, pytest.mark.ray, pytest.mark.e2e]

GONE_WITHIN_S = 30.0  # the stream ends at once; then the agent sees to its tasks and its Ray


@pytest.fixture
def coordinator(tmp_path: Path, etcd_endpoint: str) -> Iterator[Coordinator]:
    """A coordinator with TLS."""
    door = f"127.0.0.1:{free_port()}"
    started = Coordinator(tmp_path, etcd_endpoint, state_dir=str(tmp_path / "state"), listen_agents=door)
    yield started
    started.running.sweep()


def run(*argv: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(SCRIPTS / argv[0]), *argv[1:]],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_site_joins_works_for_a_tenant_and_is_revoked(coordinator: Coordinator, tmp_path: Path) -> None:
    configured = ("--config", str(coordinator.config))
    agents_door = yaml.safe_load(coordinator.config.read_text())["listen_agents"]
    (tmp_path / "site.yaml").write_text(
        yaml.safe_dump(
            {
                "site": {
                    "id": "gz",
                    "operator_id": "op",
                    "tier": "edge",
                    "jurisdiction": "CN",
                    "pue": {"average": 1.2},
                },
                "coordinator": agents_door,
                "state_dir": str(tmp_path / "agent"),
                "reflector": {"listen": f"127.0.0.1:{free_port()}"},
                "node": {"others": "ignore"},
            }
        )
    )
    role = ("--role", "tenant-user", "--tenant", "acme")
    token = run("mumian-coordinator", "token", "create", *configured, *role)
    site_token = run("mumian-coordinator", "site-token", "create", "gz", *configured, "--operator", "op")
    (tmp_path / "gz.token").write_text(site_token)
    site = ("--config", str(tmp_path / "site.yaml"))
    by_token = ("--coordinator", coordinator.address, "--token-file", str(tmp_path / "gz.token"))
    run("mumian-agent", "join", *site, *by_token)
    agent = Running([str(SCRIPTS / "mumian-agent"), "run", *site], tmp_path, "agent")
    try:
        assert agent.wait_ready() == f"ready: agent gz connected to {agents_door}"
        tenant = {
            "MUMIAN_COORDINATOR": coordinator.address,
            "MUMIAN_CA": str(tmp_path / "state/authority.pem"),
            "MUMIAN_TOKEN": token,
        }
        (tmp_path / "job.yaml").write_text("command: echo hello from a site\nresources: {cpu: 0.1}\n")
        submit = ("submit", "--wait", "-o", "json", str(tmp_path / "job.yaml"))
        job = json.loads(run("mumian", *submit, environment=tenant))
        assert (job["state"], job["tenant_id"]) == ("JOB_STATE_SUCCEEDED", "acme")
        assert "hello from" in run("mumian", "logs", job["id"], environment=tenant)
        assert "tenant-user" in run("mumian", "whoami", environment=tenant)
        assert token not in coordinator.running.log.read_text() + agent.log.read_text()
        run("mumian-coordinator", "site", "revoke", "gz", *configured)
        assert agent.process.wait(GONE_WITHIN_S) == 3, agent.log.read_text()
        assert "SITE_REVOKED: site gz was revoked" in agent.log.read_text()
    finally:
        agent.sweep()
