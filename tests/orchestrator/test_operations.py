"""What operators do to the store of a real coordinator: make room, back up, restore."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import grpc
import pytest
from mumian.api.v1 import job_pb2
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue
from mumian_orchestrator.ports.key_value import Delete, NoSpaceError, Put

from tests.etcd_cluster import EtcdCluster
from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant, spec_of
from tests.processes import SCRIPTS

pytestmark = pytest.mark.etcd


def operate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of `mumian-coordinator`'s commands."""
    command = [str(SCRIPTS / "mumian-coordinator"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def diagnosed(coordinator: Coordinator) -> tuple[int, set[str]]:
    """The exit code of `mumian doctor`, and which checks it says fail."""
    command = [str(SCRIPTS / "mumian"), "doctor", "-o", "json", "--coordinator", coordinator.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, {f["check"] for f in findings if f["state"] == "FINDING_STATE_FAIL"}


async def fill(endpoint: str) -> int:
    """Put what nobody needs into an etcd until it takes no more; how many keys."""
    client = EtcdClient([endpoint], attempt_s=30)
    count = 0
    try:
        while True:
            await EtcdKeyValue(client).transact([], [Put(f"/filler/{count}", bytes(1_000_000))])
            count += 1
    except NoSpaceError:
        return count
    finally:
        await client.close()


async def test_a_full_store_is_read_and_refuses_writes_until_it_has_room_again(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path, more=["--quota-backend-bytes", str(16 * 1024 * 1024)]) as cluster:
        [endpoint] = cluster.endpoints
        coordinator = Coordinator(tmp_path, endpoint)
        try:
            async with coordinator.channel() as channel:
                tenant = Tenant(channel)
                before = await tenant.create(spec_of("before"))
                count = await fill(endpoint)
                for request_id in ("request-1", "request-2"):
                    with pytest.raises(grpc.aio.AioRpcError) as refused:
                        await tenant.create(spec_of("during"), request_id)
                    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                    assert "mumian-coordinator defragment" in (refused.value.details() or "")
                with pytest.raises(grpc.aio.AioRpcError, match="RESOURCE_EXHAUSTED"):
                    await tenant.cancel(before.id)
                assert (await tenant.get(before.id)).id == before.id
                code, failing = diagnosed(coordinator)
                assert code == 1
                assert failing >= {"store.alarm", "store.quota", "queue.commits"}
                assert not operate("defragment", "--config", str(coordinator.config)).returncode
                with pytest.raises(grpc.aio.AioRpcError, match="RESOURCE_EXHAUSTED"):
                    await tenant.create(spec_of("during"), "request-2")
                client = EtcdClient([endpoint], attempt_s=30)
                await EtcdKeyValue(client).transact([], [Delete(f"/filler/{n}") for n in range(count)])
                await client.close()
                done = operate("defragment", "--config", str(coordinator.config))
                assert (done.returncode, done.stderr) == (0, "")
                assert "MiB are in use" in done.stdout
                during = [await created(tenant, name) for name in ("request-1", "request-2")]
                assert diagnosed(coordinator) == (0, set())
                assert len({before.id, *(job.id for job in during)}) == len((await tenant.list()).jobs) == 3
        finally:
            coordinator.running.sweep()


async def created(tenant: Tenant, request_id: str) -> job_pb2.Job:
    """The coordinator finds out for itself, within a second or so, that there is room again."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await tenant.create(spec_of("during"), request_id)
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                await asyncio.sleep(0.2)


async def everything_of(tenant: Tenant) -> list[tuple[bytes, list[bytes]]]:
    """What the public API says of all jobs, newest first."""
    found = []
    for job in (await tenant.list()).jobs:
        events = await tenant.events(job.id)
        whole = await tenant.get(job.id)
        found.append(
            (
                whole.SerializeToString(deterministic=True),
                [event.SerializeToString(deterministic=True) for event in events],
            )
        )
    return found


async def test_a_backup_restored_to_a_new_etcd_gives_the_same_answers(tmp_path: Path) -> None:
    file, ended, new_folder = tmp_path / "backup", spec_of("ended"), tmp_path / "new"
    new_folder.mkdir()
    with EtcdCluster(tmp_path) as old, EtcdCluster(new_folder) as new:
        coordinator = Coordinator(tmp_path, old.endpoints)
        try:
            async with coordinator.channel() as channel:
                tenant, agent = Tenant(channel), ScriptedAgent(channel)
                await agent.connect()
                done = await tenant.create(ended, "request-1")
                run = await agent.run_of(done.id)
                agent.status(run.allocation.id, job_pb2.ALLOCATION_STATE_SUCCEEDED, exit_code=0)
                await tenant.until(done.id, job_pb2.JOB_STATE_SUCCEEDED)
                await tenant.cancel((await tenant.create(spec_of("cancelled"))).id)
                command = [str(SCRIPTS / "mumian"), "doctor", "--coordinator", coordinator.address]
                healthy = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
                assert (healthy.returncode, healthy.stderr) == (0, "")
                assert "ok    site.stream: the agent of site gz is connected" in healthy.stdout
                assert {line[:4] for line in healthy.stdout.splitlines()} == {"ok  "}
                await agent.disconnect()
                before = await everything_of(tenant)
            backed_up = operate("backup", str(file), "--config", str(coordinator.config))
            assert (backed_up.returncode, backed_up.stderr) == (0, "")
            busy = operate("restore", str(file), "--config", str(coordinator.config), "--replace")
            assert busy.returncode == 2
            assert "stop every coordinator first" in busy.stderr
        finally:
            coordinator.running.sweep()

        restored = Coordinator(new_folder, new.endpoints, start=False)
        done_restore = operate("restore", str(file), "--config", str(restored.config))
        assert (done_restore.returncode, done_restore.stderr) == (0, "")
        leaderless = operate("doctor", "--config", str(restored.config))
        assert leaderless.returncode == 1
        assert "fail  leader: no coordinator leads" in leaderless.stdout
        again = operate("restore", str(file), "--config", str(restored.config))
        assert again.returncode == 2
        assert "--replace" in again.stderr
        restored.start()
        try:
            async with restored.channel() as channel:
                tenant = Tenant(channel)
                assert await everything_of(tenant) == before
                assert (await tenant.create(ended, "request-1")).id == done.id
        finally:
            restored.running.sweep()
