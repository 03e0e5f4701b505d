"""Admins, operators and auditors at their own machines: the command line by a token of theirs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

from mumian_orchestrator.domain.identity import Role

from tests.processes import SCRIPTS
from tests.security.secured import Secured, SiteKey, secured


async def run(platform: Secured, token: str, *argv: str, typed: str = "") -> tuple[int, str, str]:
    """The exit code, standard output and standard error of a command."""
    environment = {
        "MUMIAN_COORDINATOR": platform.people,
        "MUMIAN_CA": str(platform.ca_file),
        "MUMIAN_TOKEN": token,
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [str(SCRIPTS / argv[0]), *argv[1:]],
        capture_output=True,
        text=True,
        input=typed,
        timeout=60,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout.strip(), done.stderr.strip()


async def test_each_does_by_the_command_line_what_the_role_allows(tmp_path: Path) -> None:
    async with secured(tmp_path / "state") as platform:
        admin = await platform.token(Role.TENANT_ADMIN, "acme")
        create = ("mumian", "token", "create", "--role", "tenant-user")
        code, user, told = await run(platform, admin, *create)
        assert code == 0 and told.startswith("token ")
        assert (await run(platform, user, "mumian", "whoami"))[1].endswith("UTC")
        code, _, told = await run(platform, admin, *create, "--tenant", "rival")
        assert code == 2 and "PERMISSION_DENIED" in told
        _, listed, _ = await run(platform, admin, "mumian", "token", "list")
        assert [line.split()[2] for line in listed.splitlines()[1:]] == ["acme", "acme"]
        assert (await run(platform, admin, "mumian", "token", "revoke", user.split("_")[1]))[0] == 0
        assert "was revoked" in (await run(platform, user, "mumian", "whoami"))[2]

        operator = await platform.token(Role.OPERATOR, operator_id="op")
        code, site_token, _ = await run(platform, operator, "mumian", "site-token", "create", "gz")
        assert code == 0
        await platform.join(SiteKey(), site_token)
        assert "gz    op" in (await run(platform, operator, "mumian", "site", "list"))[1]
        assert (await run(platform, operator, "mumian", "site", "revoke", "gz"))[0] == 0
        log = tmp_path / "audit.log"
        code, _, told = await run(platform, operator, "mumian", "audit", "export", str(log))
        assert code == 2 and "audit.read" in told and not log.exists()

        auditor = await platform.token(Role.AUDITOR)
        code, told, _ = await run(platform, auditor, "mumian", "audit", "export", str(log))
        assert code == 0
        verify = ("mumian-coordinator", "audit", "verify", str(log))
        head = told.split()[-1]
        assert (await run(platform, "", *verify, "--head", head))[0] == 0
        lines = log.read_bytes().splitlines(keepends=True)
        log.write_bytes(b"".join(lines[:-1]))
        code, _, told = await run(platform, "", *verify, "--head", head)
        assert code == 1 and "the log ends with entry" in told


async def test_a_tenants_admin_keeps_secrets_that_no_role_reads_and_no_log_has(tmp_path: Path) -> None:
    async with secured(tmp_path / "state") as platform:
        admin = await platform.token(Role.TENANT_ADMIN, "acme")
        user = await platform.token(Role.TENANT_USER, "acme")
        root = await platform.token(Role.PLATFORM_ADMIN)
        put = ("mumian", "secret", "set", "db-password")
        code, told, _ = await run(platform, admin, *put, typed="horse-battery\n")
        assert code == 0 and told.startswith("secret db-password is set")
        code, _, told = await run(platform, admin, *put)
        assert code == 2 and "is empty" in told
        assert (await run(platform, user, *put, typed="mine"))[0] == 2
        code, listed, _ = await run(platform, user, "mumian", "secret", "list", "-o", "json")
        assert code == 0 and '"db-password"' in listed and "horse-battery" not in listed
        code, _, told = await run(platform, root, "mumian", "secret", "list", "--tenant", "acme")
        assert code == 2 and "secrets.read" in told
        job = tmp_path / "job.yaml"
        job.write_text("command: [env]\nsecrets: {DB_PASSWORD: db-password}\n")
        code, _, told = await run(platform, user, "mumian", "submit", str(job))
        assert code == 1 and "NO_PLACE" in told  # there is no site; it waits
        code, _, told = await run(platform, admin, "mumian", "secret", "delete", "db-password")
        assert code == 2 and "SECRET_IN_USE" in told
        _, listed, _ = await run(platform, user, "mumian", "jobs", "-o", "json")
        [waiting] = json.loads(listed)["jobs"]
        assert (await run(platform, user, "mumian", "cancel", waiting["id"]))[0] == 0
        code, told, _ = await run(platform, admin, "mumian", "secret", "delete", "db-password")
        assert (code, told) == (0, "secret db-password is deleted")
        assert "db-password" not in (await run(platform, admin, "mumian", "secret", "list"))[1]
        lines, _ = await platform.log()
        entry = next(json.loads(line) for line in lines if b"PutSecret" in line)
        assert entry["about"] == {"name": "db-password"}
        assert not any(b"horse-battery" in line for line in lines)
