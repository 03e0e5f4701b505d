"""What is asked at the site, over a real socket, by the real command line."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mumian_agent.adapters.local.server import serve
from mumian_agent.agent.site_desk import SiteDesk
from mumian_agent.runtime.contact import Contact, now_ns

from tests.agent.scripted_coordinator import run_of
from tests.agent.test_state import FAILED, RUNNING, Site
from tests.processes import SCRIPTS


@asynccontextmanager
async def desk_of(folder: Path) -> AsyncIterator[Site]:
    """A site whose agent answers, and has lost its coordinator."""
    site, contact = Site(folder), Contact(folder / "contact")
    contact.heard(now_ns() - 90 * 10**9)
    desk = SiteDesk("gz-test", site.allocations, site.journal, contact)
    serving = asyncio.create_task(serve(folder, desk))
    while not (folder / "agent.sock").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield site
    serving.cancel()
    await asyncio.wait({serving})


async def agent(*argv: str) -> subprocess.CompletedProcess[str]:
    """A command line of `mumian-agent` to its end."""
    command = [str(SCRIPTS / "mumian-agent"), *argv]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )


async def test_a_site_that_is_alone_shows_its_tasks_their_logs_and_ends_them(tmp_path: Path) -> None:
    folder = tmp_path / ("a-long-name-" * 12)  # longer than a socket's path may be
    folder.mkdir()
    async with desk_of(folder) as site:
        run = run_of("alone.main.0", "sh", "-c", "echo out; echo err >&2; sleep 100")
        run.allocation.tenant_id = "acme"
        site.allocations.run(run)
        await site.until(run, RUNNING)
        where = ("--state-dir", str(folder))
        shown = await agent("status", *where, "-o", "json")
        told = json.loads(shown.stdout)
        assert (told["site"], told["untold"]) == ("gz-test", 0)
        assert 90 <= told["silent_s"] < 150
        [task] = told["tasks"]
        assert (task["allocation"], task["tenant"], task["state"]) == ("alone.main.0", "acme", "running")
        assert os.getsid(task["pid"]) == task["pid"]
        logs = await agent("logs", *where, "alone.main.0")
        assert (logs.stdout, logs.stderr) == ("out\n", "err\n")
        following = asyncio.create_task(agent("logs", *where, "-f", "alone.main.0"))
        ended = await agent("cancel", *where, "alone.main.0")
        assert "is being ended" in ended.stdout
        await site.until(run, FAILED)
        assert (await following).stdout == "out\n"
        table = (await agent("status", *where)).stdout.splitlines()
        assert table[0].endswith("1 results are still to be told")
        assert "ended at its site" in table[-1]
        again = await agent("cancel", *where, "alone.main.0")
        assert (again.returncode, again.stderr) == (
            1,
            "mumian-agent: nothing runs of allocation alone.main.0\n",
        )
        unknown = await agent("logs", *where, "none")
        assert "knows nothing of allocation none" in unknown.stderr
        mode = (folder / "agent.sock").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600


async def test_without_an_agent_the_command_says_so(tmp_path: Path) -> None:
    done = await agent("status", "--state-dir", str(tmp_path))
    assert done.returncode == 3
    assert "no agent answers for state_dir" in done.stderr


@pytest.mark.parametrize("request_line", [b"", b"nonsense\n", b'{"verb": "format the disk"}\n', b"[1]\n"])
async def test_what_is_no_request_does_no_harm(tmp_path: Path, request_line: bytes) -> None:
    async with desk_of(tmp_path) as site:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "agent.sock"))
        writer.write(request_line)
        writer.write_eof()
        assert b"Traceback" not in await reader.read()
        writer.close()
        assert site.allocations.live() == []
        assert (await agent("status", "--state-dir", str(tmp_path))).returncode == 0
