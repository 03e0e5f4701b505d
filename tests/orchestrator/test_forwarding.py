"""What a follower does with calls while nobody leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from mumian_agent.adapters.grpc.refusals import retry_after_s
from mumian_orchestrator.adapters.grpc import forwarding as module
from mumian_orchestrator.adapters.grpc.forwarding import Forwarding
from mumian_orchestrator.adapters.grpc.server import ConnectionLimits, Door, start_following
from mumian_orchestrator.main.free_ports import free_port
from mumian_orchestrator.services.leadership import Incumbent

METHOD = "/mumian.test/Echo"


class Echo(grpc.GenericRpcHandler):
    """A leader that answers what it is asked."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def echo(request: bytes, _: object) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(echo, None, None)


@asynccontextmanager
async def leader_at(address: str) -> AsyncIterator[None]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


@asynccontextmanager
async def follower_of(incumbent: Incumbent) -> AsyncIterator[Callable[[bytes], Any]]:
    """The method as a follower has it, who ends as one that takes over does."""
    address, forwarding = f"127.0.0.1:{free_port()}", Forwarding(incumbent, None)
    server = await start_following([Door(address)], ConnectionLimits(), forwarding)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield channel.unary_unary(METHOD, lambda request: request, lambda answer: answer)
            await forwarding.release()
    finally:
        await server.stop(None)
        await forwarding.close()


async def test_calls_wait_at_a_follower_until_there_is_a_leader_who_answers() -> None:
    incumbent, address = Incumbent(), f"127.0.0.1:{free_port()}"
    async with follower_of(incumbent) as echo:
        asked = [asyncio.ensure_future(echo(b"%d" % n)) for n in range(20)]
        await asyncio.sleep(0.1)
        incumbent.see(f"{address} (elected, and its door is still shut)")
        await asyncio.sleep(0.1)
        assert not any(call.done() for call in asked)
        async with leader_at(address):
            assert await asyncio.gather(*asked) == [b"%d" % n for n in range(20)]


async def test_who_has_waited_long_enough_is_told_that_nobody_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD_S", 0.1)
    async with follower_of(Incumbent()) as echo:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await echo(b"")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "a leader cannot be reached" in str(refused.value.details())


async def test_who_waits_when_the_follower_takes_over_is_told_to_come_again() -> None:
    async with follower_of(Incumbent()) as echo:
        asked = asyncio.ensure_future(echo(b""))
        await asyncio.sleep(0.1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asked
    # It has an answer of ours, not only a connection that broke, and asks here again.
    assert "this coordinator takes over" in str(refused.value.details())
    assert retry_after_s(refused.value) == module._LEADS_WITHIN_S


async def test_no_more_calls_wait_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD_MAX", 3)
    monkeypatch.setattr(module, "_HELD_S", 30.0)
    async with follower_of(Incumbent()) as echo:
        asked = [asyncio.ensure_future(echo(b"")) for _ in range(8)]
        refused, waiting = await asyncio.wait(asked, timeout=2)
        assert len(waiting) == 3
        assert len(refused) == 5
        assert all(isinstance(call.exception(), grpc.aio.AioRpcError) for call in refused)
        for call in waiting:
            call.cancel()
