"""Tenants' secrets: in the store for nobody to read, in the environment of the tasks that name them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from mumian.api.v1 import error_pb2
from mumian.api.v1.job_pb2 import Job, JobSpec
from mumian_orchestrator.adapters.fernet.secret_box import FernetBox, KeyFileError
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.ports.secret_box import SealBrokenError
from mumian_orchestrator.services.secrets import VALUE_BYTES_MAX

from tests.memory.leader import KEY_PREFIX, leading
from tests.memory.site import Site
from tests.orchestrator.tenant import spec_of

VALUE = b"correct horse battery staple"


@pytest.fixture
def box(tmp_path: Path) -> FernetBox:
    return FernetBox.made_in(tmp_path / "secrets.key")


def wanting(name: str = "db-password") -> JobSpec:
    """A job whose task finds the secret as DB_PASSWORD."""
    spec = spec_of()
    spec.task_groups[0].command.secrets["DB_PASSWORD"] = name
    return spec


async def placed(services: Services, request_id: str) -> Job:
    """Such a job once it is on a site."""
    job = await services.admission.create("acme", request_id, wanting())
    await asyncio.sleep(1)
    job = services.admission.get("acme", job.id)
    assert job.allocations
    return job


async def refusal(services: Services, spec: JobSpec, tenant_id: str = "acme") -> RequestRefusedError:
    with pytest.raises(RequestRefusedError) as refused:
        await services.admission.create(tenant_id, "r-refused", spec)
    return refused.value


async def test_a_task_is_sent_the_value_and_neither_store_nor_api_shows_it(box: FernetBox) -> None:
    cluster = MemoryCluster()
    async with leading(cluster, secret_box=box) as services:
        site = Site(services)
        await site.connect()
        await services.secrets.put("acme", "db-password", VALUE, "ann")
        job = await placed(services, "r1")
        [run] = [c.run for c in site.commands if c.HasField("run")]
        assert dict(run.secrets) == {"DB_PASSWORD": VALUE.decode()}
        shown = [job, *services.secrets.of("acme"), *await services.admission.events("acme", job.id)]
        assert not any(VALUE in message.SerializeToString() for message in shown)
        stored = [entry.value for entry in cluster.list(KEY_PREFIX).entries]
        assert stored and not any(VALUE in value for value in stored)


async def test_a_new_leader_has_it_and_a_welcome_brings_it_again(box: FernetBox) -> None:
    cluster = MemoryCluster()
    async with leading(cluster, secret_box=box) as services:
        site = Site(services)
        await site.connect()
        await services.secrets.put("acme", "db-password", VALUE, "ann")
        await placed(services, "r1")
    async with leading(cluster, secret_box=box) as services:
        site = Site(services)
        await site.connect()
        [welcome] = [c.welcome for c in site.commands if c.HasField("welcome")]
        assert dict(welcome.allocations[0].secrets) == {"DB_PASSWORD": VALUE.decode()}


async def test_another_tenants_secret_is_told_as_one_that_nobody_has(box: FernetBox) -> None:
    async with leading(MemoryCluster(), secret_box=box) as services:
        await services.secrets.put("acme", "db-password", VALUE, "ann")
        others = await refusal(services, wanting(), "rival")
        nobodys = await refusal(services, wanting("db-passphrase"), "rival")
        assert others.reason == nobodys.reason == error_pb2.ERROR_REASON_SECRET_NOT_FOUND
        assert others.message.replace("db-password", "db-passphrase") == nobodys.message
        assert others.faults[0].field == "task_groups[0].command.secrets[DB_PASSWORD]"
        assert services.secrets.of("rival") == []


async def test_a_value_that_was_moved_to_another_tenant_in_the_store_is_not_opened(box: FernetBox) -> None:
    async with leading(MemoryCluster(), secret_box=box) as services:
        await services.secrets.put("acme", "db-password", VALUE, "ann")
        await services.secrets.put("rival", "db-password", b"mine", "eve")
        stored = services.secrets._stored
        stored["rival", "db-password"].sealed = stored["acme", "db-password"].sealed
        assert services.secrets.opened("rival", wanting().task_groups[0]) == {}
        assert services.secrets.opened("acme", wanting().task_groups[0]) != {}


async def test_a_secret_is_kept_while_a_job_names_it_and_can_go_after_its_end(box: FernetBox) -> None:
    async with leading(MemoryCluster(), secret_box=box) as services:
        await services.secrets.put("acme", "db-password", VALUE, "ann")
        job = await services.admission.create("acme", "r1", wanting())
        with pytest.raises(RequestRefusedError, match=f"is named by {job.id}"):
            await services.secrets.delete("acme", "db-password")
        await services.admission.cancel("acme", job.id)
        await services.secrets.delete("acme", "db-password")
        assert services.secrets.of("acme") == []
        with pytest.raises(RequestRefusedError, match="is no secret of yours"):
            await services.secrets.delete("acme", "db-password")


async def test_a_new_value_is_for_tasks_that_start_later(box: FernetBox) -> None:
    async with leading(MemoryCluster(), secret_box=box) as services:
        site = Site(services)
        await site.connect()
        first = await services.secrets.put("acme", "db-password", VALUE, "ann")
        await placed(services, "r1")
        second = await services.secrets.put("acme", "db-password", b"new", "bob")
        await placed(services, "r2")
        runs = [c.run for c in site.commands if c.HasField("run")]
        assert [run.secrets["DB_PASSWORD"] for run in runs] == [VALUE.decode(), "new"]
        assert second.create_time == first.create_time
        assert second.updated_by == "bob"


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("No Name", VALUE, "name"),
        ("empty", b"", "value"),
        ("zero", b"a\0b", "value"),
        ("bytes", b"\xff\xfe", "value"),
        ("long", b"x" * (VALUE_BYTES_MAX + 1), "value"),
    ],
)
async def test_what_can_be_no_secret_is_refused_without_showing_its_value(
    box: FernetBox, name: str, value: bytes, field: str
) -> None:
    async with leading(MemoryCluster(), secret_box=box) as services:
        with pytest.raises(RequestRefusedError) as refused:
            await services.secrets.put("acme", name, value, "ann")
        assert [fault.field for fault in refused.value.faults] == [field]
        assert repr(value) not in refused.value.message or not value
        assert services.secrets.of("acme") == []


async def test_without_a_key_there_are_no_secrets() -> None:
    async with leading(MemoryCluster()) as services:
        with pytest.raises(RequestRefusedError) as refused:
            await services.secrets.put("acme", "db-password", VALUE, "ann")
        assert refused.value.reason == error_pb2.ERROR_REASON_SECRETS_OFF


async def test_a_variable_is_a_secret_or_not(box: FernetBox) -> None:
    async with leading(MemoryCluster(), secret_box=box) as services:
        await services.secrets.put("acme", "db-password", VALUE, "ann")
        spec = wanting()
        spec.task_groups[0].command.environment["DB_PASSWORD"] = "plain"
        assert "is in the environment as well" in (await refusal(services, spec)).message


def test_a_new_key_seals_and_an_old_one_still_opens(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    old = FernetBox.made_in(file)
    sealed = old.seal(VALUE)
    file.write_text(f"{Fernet.generate_key().decode()}\n{file.read_text()}")
    both = FernetBox(file)
    assert both.open(sealed) == VALUE
    with pytest.raises(SealBrokenError):
        old.open(both.seal(VALUE))


def test_a_key_file_that_others_can_read_or_that_holds_no_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    FernetBox.made_in(file)
    before = file.read_text()
    FernetBox.made_in(file)
    assert file.read_text() == before
    file.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        FernetBox(file)
    file.chmod(0o600)
    for content in ("", "too short\n"):
        file.write_text(content)
        with pytest.raises(KeyFileError, match="openssl rand -base64 32"):
            FernetBox(file)
    with pytest.raises(KeyFileError, match="cannot be read"):
        FernetBox(tmp_path / "nowhere")
