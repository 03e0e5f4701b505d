"""Round trips by gRPC, where UDP does not pass: the standard health check, which any server answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import grpc

from mumian_agent.runtime.probing.prober import NoAnswerError
from mumian_agent.runtime.reflector import ReflectorError

_SERVICE, _METHOD = "grpc.health.v1.Health", "Check"
_ANSWER_WITHIN_S = 2.0
_THREADS, _CALLS_MAX = 4, 256
_SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}
# A server that nobody refers to stops.
_serving: list[grpc.Server] = []
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A connection to a gRPC server without TLS (host:port); what it yields makes one round trip.

    That raises NoAnswerError. To say that it has no health check is an answer as well.
    """
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{_SERVICE}/{_METHOD}")

        async def round_trip() -> None:
            try:
                await check(b"", timeout=_ANSWER_WITHIN_S)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise NoAnswerError(error.details() or error.code().name) from None

        yield round_trip


def serve(listen: str) -> grpc.Server:
    """Answer health checks in the background, until the process ends.

    Raises:
        ReflectorError: the address is taken or not this machine's.
    """
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, "grpc-reflector"),
        maximum_concurrent_rpcs=_CALLS_MAX,
        options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 1024)),
    )
    check: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
        lambda _request, _context: _SERVING
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: check})])
    try:
        server.add_insecure_port(listen)
    except RuntimeError:
        raise ReflectorError(f"{listen} cannot be listened on by TCP; choose another port") from None
    server.start()
    _serving.append(server)
    return server
