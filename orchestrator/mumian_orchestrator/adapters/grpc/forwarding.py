"""What a coordinator does that does not lead: it asks the leader, and passes the answer on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from mumian.api.v1 import error_pb2

from mumian_orchestrator.adapters.grpc.errors import Context, abort
from mumian_orchestrator.adapters.grpc.tls import (
    FORWARDED,
    FORWARDED_CERTIFICATE,
    FORWARDED_PEER,
    KeyPair,
    client_credentials,
    peer_certificate,
)
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.services.leadership import Incumbent

_OURS = "/mumian."
# Nobody but a coordinator may send these: what a caller sends itself is left out.
_OURS_ALONE = frozenset({FORWARDED_CERTIFICATE, FORWARDED_PEER})
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    # Of gRPC's own pings: while one is out no keepalive is sent, and by default it is waited for a minute.
    ("grpc.http2.ping_timeout_ms", 2000),
    # It is the time that one attempt to connect may take, too: a leader that sleeps accepts and says nothing.
    ("grpc.min_reconnect_backoff_ms", 1000),
    # A new leader opens its door a moment after it is known.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)
# While no leader can be reached, calls wait here for the next one, who then hears of all of them at once: so
# long, which is less than a client waits that no coordinator has ever answered, and so many.
_HELD_S, _HELD_MAX = 2.0, 4000
_LOOK_EVERY_S = 0.02
_LOOKS_WHILE_TOLD = 10
# Who follows no more leads soon, and takes so long to open its door.
_LEADS_WITHIN_S = 0.25
# How a call ends that the leader has not answered. Its own answers carry more than a code.
_BROKEN_OFF = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


class Proof:
    """What this coordinator shows to the leader, and how it knows the leader: both by one authority."""

    def __init__(self, authority: bytes, pairs: Callable[[], KeyPair]) -> None:
        self._authority, self._pairs = authority, pairs

    def newest(self) -> KeyPair:
        """What it shows now; it is another one when it was renewed."""
        return self._pairs()

    def credentials(self, pair: KeyPair) -> grpc.ChannelCredentials:
        """For a connection."""
        return client_credentials(self._authority, pair)


class Forwarding(grpc.GenericRpcHandler):
    """Every method of ours, byte for byte, as a stream of requests and one of answers: of one, or of many.

    A caller's token goes along as it came: only the leader can check it, and it is sent to nobody who has not
    proved to be a coordinator. A caller's certificate cannot go along with the connection, so it is sent as
    metadata, which the leader believes a coordinator.
    """

    def __init__(self, incumbent: Incumbent, proof: Proof | None) -> None:
        self._incumbent, self._proof = incumbent, proof
        self._channels: dict[str, tuple[KeyPair | None, grpc.aio.Channel]] = {}
        self._outdated: list[grpc.aio.Channel] = []  # calls are still under way on them
        self._held = 0
        self._being_told = 0
        self._is_over = False
        self._reaching: asyncio.Task[grpc.aio.Channel] | None = None  # on behalf of all that are held

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """The handler of a call; None for what every coordinator answers itself."""
        method = handler_call_details.method
        if not method.startswith(_OURS):
            return None

        # gRPC wants a generator function, and looks at no wrapper's inside.
        async def forward(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            async for answer in self._forward(method, requests, context):
                yield answer

        return grpc.stream_stream_rpc_method_handler(forward, None, None)

    async def release(self) -> None:
        """Tell those who are held to come again: this coordinator follows no more. A call that is broken off
        instead has heard of nobody who is here.
        """
        self._is_over = True
        for _ in range(_LOOKS_WHILE_TOLD):
            if not (self._held or self._being_told):
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    async def close(self) -> None:
        """Break off what is under way."""
        if self._reaching is not None:
            self._reaching.cancel()
        for channel in [*self._outdated, *(channel for _, channel in self._channels.values())]:
            await channel.close()

    async def _forward(
        self, method: str, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        metadata = [
            (key, value)
            for key, value in context.invocation_metadata() or ()
            if key != "user-agent" and not key.startswith("grpc-") and key not in _OURS_ALONE
        ]
        metadata.append((FORWARDED_PEER, context.peer()))
        if certificate := peer_certificate(context):
            metadata.append((FORWARDED_CERTIFICATE, certificate))
        if any(key == FORWARDED for key, _ in metadata):
            await abort(context, _no_leader("this coordinator does not lead"))
        try:
            channel = await self._leader()
        except TimeoutError:
            leader = f"the leader, {self._incumbent.address}," if self._incumbent.address else "a leader"
            self._being_told += 1
            try:
                if self._is_over:
                    await abort(context, _no_leader("this coordinator takes over", _LEADS_WITHIN_S))
                await abort(context, _no_leader(f"{leader} cannot be reached"))
            finally:
                self._being_told -= 1
        send: Any = channel.stream_stream(method)
        call = send(requests, timeout=context.time_remaining(), metadata=[*metadata, (FORWARDED, "1")])
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            trailing = tuple(error.trailing_metadata() or ())
            if error.code() in _BROKEN_OFF and not trailing:
                await abort(context, _no_leader("the leader has gone away before it answered"))
            await context.abort(error.code(), error.details() or "", trailing)
        finally:
            call.cancel()

    async def _leader(self) -> grpc.aio.Channel:
        """A channel to the leader that is connected.

        Raises:
            TimeoutError: nobody leads who can be reached, and it has been waited for, or too many wait.
        """
        if self._incumbent.address and _is_connected(channel := self._channel(self._incumbent.address)):
            return channel
        if self._is_over or self._held >= _HELD_MAX:
            raise TimeoutError
        if self._reaching is None or self._reaching.done():
            self._reaching = asyncio.create_task(self._reach())
        self._held += 1
        try:
            return await asyncio.wait_for(asyncio.shield(self._reaching), _HELD_S)
        finally:
            self._held -= 1

    async def _reach(self) -> grpc.aio.Channel:
        """Try to connect to whoever leads, until one is reached or nobody waits any more.

        Raises:
            TimeoutError: this coordinator follows no more.
        """
        while not self._is_over:
            if self._incumbent.address:
                channel = self._channel(self._incumbent.address)
                if _is_connected(channel) or not self._held:
                    return channel
            await asyncio.sleep(_LOOK_EVERY_S)
        raise TimeoutError

    def _channel(self, address: str) -> grpc.aio.Channel:
        shown = self._proof.newest() if self._proof else None
        known, channel = self._channels.get(address, (None, None))
        if channel is not None and known is shown:
            return channel
        if channel is not None:
            self._outdated.append(channel)
        if self._proof is None or shown is None:
            channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        else:
            channel = grpc.aio.secure_channel(address, self._proof.credentials(shown), options=_OPTIONS)
        self._channels[address] = shown, channel
        return channel


def _is_connected(channel: grpc.aio.Channel) -> bool:
    """Whether it is; if not, it tries to be soon."""
    return channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY


def _no_leader(why: str, retry_after_s: float | None = None) -> RequestRefusedError:
    """With a time: it is best tried here again, and then."""
    advice = f"{why}; try again with the same request_id, here or elsewhere"
    return RequestRefusedError(error_pb2.ERROR_REASON_NOT_LEADER, advice, retry_after_s=retry_after_s)
