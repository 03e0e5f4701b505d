"""Who may make which call: the table, walked over the wire for every RPC and every kind of caller."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import mumian.agent.v1
import mumian.api.v1
import pytest
from google.protobuf.descriptor import MethodDescriptor
from mumian.api.v1 import access_service_pb2
from mumian.api.v1.access_service_pb2_grpc import AccessServiceStub
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.identity import LOCAL, NOBODY, Caller, Role, acting_tenant
from mumian_orchestrator.domain.permissions import ROLES, RULES, Permission, holds, rule_of

from tests.security.secured import Secured, bearer, secured

DOCS = Path(__file__).parents[2] / "docs/security.md"
DENIED = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}


def methods() -> Iterator[MethodDescriptor]:
    """Every RPC of every service that Mumian's protos declare."""
    for package in (mumian.api.v1, mumian.agent.v1):
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.endswith("_service_pb2"):
                descriptor = importlib.import_module(f"{package.__name__}.{module.name}").DESCRIPTOR
                for service in descriptor.services_by_name.values():
                    yield from service.methods


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def test_every_rpc_has_one_declared_permission_and_no_row_is_left_over() -> None:
    declared = {f"/{service}/{name}" for service, rules in RULES.items() for name in rules}
    ours = {path_of(method) for method in methods()}
    assert ours - declared == set(), "declare them in domain/permissions.py"
    assert {path for path in declared if path.startswith("/mumian.")} == ours


def test_what_changes_something_answers_once_so_that_its_entry_can_go_with_it() -> None:
    for method in methods():
        rule = rule_of(path_of(method))
        assert rule is not None
        assert not (rule.is_change and (method.server_streaming or method.client_streaming)), method.full_name


def test_an_rpc_that_nobody_has_declared_has_no_rule() -> None:
    assert rule_of("/mumian.api.v1.JobService/DropAll") is None
    assert rule_of("/mumian.api.v1.JobService") is None


def test_nobody_has_no_permission_and_this_machine_has_all() -> None:
    for permission in Permission:
        assert holds(NOBODY, permission) == (permission is Permission.PUBLIC)
        assert holds(LOCAL, permission)


def test_every_permission_that_roles_have_is_in_the_table() -> None:
    assert set(ROLES) == set(Permission) - {Permission.PUBLIC, Permission.SITE}


def test_a_site_has_its_own_permission_only() -> None:
    site = Caller("site gz", site_id="gz")
    assert {p for p in Permission if holds(site, p)} == {Permission.PUBLIC, Permission.SITE}


def test_a_tenant_that_names_another_is_refused_and_its_own_name_changes_nothing() -> None:
    acme = Caller("acme's", frozenset({Role.TENANT_USER}), tenant_id="acme")
    with pytest.raises(RequestRefusedError, match="the credential is of tenant acme"):
        acting_tenant(acme, "rival")
    assert acting_tenant(acme, "acme") == acting_tenant(acme, "") == "acme"


async def outcome(channel: Any, method: MethodDescriptor, metadata: object) -> grpc.StatusCode:
    """How a call with an empty request ends; OK also for a stream that has begun."""
    send = channel.unary_stream if method.server_streaming else channel.unary_unary
    call = send(path_of(method))(b"", metadata=metadata, timeout=20)
    try:
        if method.server_streaming:
            await call.read()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    finally:
        call.cancel()
    return grpc.StatusCode.OK


async def credentials(platform: Secured) -> dict[str, tuple[frozenset[Role], object]]:
    found: dict[str, tuple[frozenset[Role], object]] = {"nobody": (frozenset(), ())}
    for role in Role:
        tenant_id = "acme" if role.name.startswith("TENANT") else ""
        token = await platform.token(role, tenant_id, "op" if role is Role.OPERATOR else "")
        named = () if tenant_id else (("mumian-tenant", "acme"),)
        found[role] = frozenset({role}), bearer(token, *named)
    return found


async def test_every_rpc_is_refused_to_every_role_without_its_permission_and_to_no_other(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path) as platform, platform.people_channel() as channel:
        wrong: list[tuple[object, ...]] = []
        for who, (roles, metadata) in (await credentials(platform)).items():
            for method in methods():
                rule = rule_of(path_of(method))
                assert rule is not None
                # Join and RenewCertificate let everybody ask, and refuse by what is asked.
                if rule.permission is Permission.PUBLIC:
                    continue
                allowed = holds(Caller(who, roles), rule.permission)
                code = await outcome(channel, method, metadata)
                refused = code in DENIED
                if who == "nobody" and code is not grpc.StatusCode.UNAUTHENTICATED:
                    wrong.append((who, method.full_name, code))
                if refused == allowed:
                    wrong.append((who, method.full_name, code))
        assert wrong == []


async def test_an_agent_may_make_no_call_of_people_and_people_none_of_agents(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        key = await platform.joined()
        admin = await platform.token(Role.PLATFORM_ADMIN)
        async with platform.agent_channel(key.pem, key.certificate) as channel:
            for method in methods():
                rule = rule_of(path_of(method))
                if rule is None or rule.permission in (Permission.PUBLIC, Permission.SITE):
                    continue
                # Not even with a token beside the certificate: a stolen one is of no use on a site.
                for metadata in ((), bearer(admin)):
                    code = await outcome(channel, method, metadata)
                    assert code is grpc.StatusCode.PERMISSION_DENIED, method.full_name
        async with platform.people_channel() as channel:
            connect: Any = channel.stream_stream("/mumian.agent.v1.AgentService/Connect")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await connect(iter([b""]), metadata=bearer(admin)).read()
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_tenants_admin_makes_sees_and_revokes_tokens_of_its_own_tenant_only(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform, platform.people_channel() as channel:
        stub = AccessServiceStub(channel)
        admin = bearer(await platform.token(Role.TENANT_ADMIN, "acme"))
        rival = await platform.token(Role.TENANT_USER, "rival")
        pb = access_service_pb2
        wanted = pb.CreateApiTokenRequest(title="ci", role=Role.TENANT_USER.wire, tenant_id="acme")
        made = await stub.CreateApiToken(wanted, metadata=admin)
        listed = (await stub.ListApiTokens(pb.ListApiTokensRequest(), metadata=admin)).tokens
        assert {token.tenant_id for token in listed} == {"acme"}
        for role, tenant_id in ((Role.TENANT_USER, "rival"), (Role.PLATFORM_ADMIN, ""), (Role.AUDITOR, "")):
            request = pb.CreateApiTokenRequest(title="x", role=role.wire, tenant_id=tenant_id)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.CreateApiToken(request, metadata=admin)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        told = []
        for token_id in (rival.split("_")[1], "0" * 10):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.RevokeApiToken(pb.RevokeApiTokenRequest(token_id=token_id), metadata=admin)
            told.append((refused.value.code(), (refused.value.details() or "").replace(token_id, "ID")))
        assert told[0] == told[1], "another tenant's token looks like none at all"
        await stub.RevokeApiToken(pb.RevokeApiTokenRequest(token_id=made.token.id), metadata=admin)


def table() -> list[list[str]]:
    """The rows of the table in docs/security.md, from the code."""
    rows = []
    for service, rules in RULES.items():
        for name, rule in rules.items():
            allowed = {
                Permission.PUBLIC: ["anybody"],
                Permission.SITE: ["the site's agent"],
            }.get(rule.permission) or [str(role) for role in Role if role in ROLES[rule.permission]]
            action = f"`{service.rpartition('.')[2]}/{name}`"
            rows.append([action, f"`{rule.permission}`", "yes" if rule.is_change else "", ", ".join(allowed)])
    return rows


def test_the_table_in_the_docs_is_the_table_in_the_code() -> None:
    shown = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in DOCS.read_text().splitlines()
        if re.match(r"\| `\w+/\w+` \|", line)
    ]
    expected = "\n".join(f"| {' | '.join(row)} |" for row in table())
    assert shown == table(), f"put this into docs/security.md:\n{expected}"
