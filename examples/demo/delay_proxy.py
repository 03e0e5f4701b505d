"""A network path with a length: UDP datagrams and TCP bytes pass unchanged, half a round trip late.

`python delay_proxy.py udp:127.0.0.1:7001:127.0.0.1:9001:5.0 ...` prints `ready:` once it listens everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

Address = tuple[str, int]
_CHUNK_BYTES = 64 * 1024
_CHUNKS_UNDER_WAY_MAX = 1024


class PathError(Exception):
    """A path that is written wrongly, or that cannot be listened on."""


@dataclass(frozen=True, slots=True)
class DelayedPath:
    """From an address of ours to a target, with the round-trip time between them."""

    protocol: str  # "udp" or "tcp"
    listen: Address
    target: Address
    rtt_ms: float

    @property
    def one_way_s(self) -> float:
        """What one direction takes."""
        return self.rtt_ms / 2000

    def __str__(self) -> str:
        return ":".join(map(str, (self.protocol, *self.listen, *self.target, self.rtt_ms)))

    @classmethod
    def parse(cls, text: str) -> DelayedPath:
        """The inverse of `str`.

        Raises:
            PathError: it has another form.
        """
        try:
            protocol, listen_host, listen_port, host, port, rtt_ms = text.split(":")
            path = cls(protocol, (listen_host, int(listen_port)), (host, int(port)), float(rtt_ms))
        except ValueError:
            raise PathError(f"path ({text}) must be udp|tcp:HOST:PORT:TO_HOST:TO_PORT:RTT_MS") from None
        if protocol not in ("udp", "tcp") or path.rtt_ms < 0:
            raise PathError(f"path ({text}) must begin with udp: or tcp: and have an RTT of 0 or more")
        return path


class _Outward(asyncio.DatagramProtocol):
    """The way out and back of one sender."""

    def __init__(self, answer: Callable[[bytes], None]) -> None:
        self._answer = answer

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:  # noqa: ARG002
        """The target has answered."""
        self._answer(data)


class _UdpEntrance(asyncio.DatagramProtocol):
    """Where senders send to. Each gets a socket of its own towards the target, so that answers find back."""

    def __init__(self, path: DelayedPath) -> None:
        self._path = path
        self._outward: dict[Address, asyncio.Task[asyncio.DatagramTransport]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Listening."""
        # A cast, because asyncio's own transport is not of its own type.
        self._entrance = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """A sender has sent."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._path.one_way_s
        if addr not in self._outward:
            self._outward[addr] = asyncio.create_task(self._open(addr))
        self._outward[addr].add_done_callback(lambda way: loop.call_at(due_s, way.result().sendto, data))

    async def _open(self, sender: Address) -> asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()

        def answer(data: bytes) -> None:
            loop.call_later(self._path.one_way_s, self._entrance.sendto, data, sender)

        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Outward(answer), remote_addr=self._path.target
        )
        return transport


async def _open_udp(path: DelayedPath) -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _UdpEntrance(path), local_addr=path.listen
    )


async def _open_tcp(path: DelayedPath) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            outward_reader, outward_writer = await asyncio.open_connection(*path.target)
        except OSError:
            writer.close()
            return
        pumps = (
            _pump(reader, outward_writer, path.one_way_s),
            _pump(outward_reader, writer, path.one_way_s),
        )
        await asyncio.gather(*pumps, return_exceptions=True)
        outward_writer.close()
        writer.close()

    await asyncio.start_server(serve, *path.listen)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Pass on what is read, late. Reading goes on meanwhile, so that a delay costs no bandwidth."""
    loop = asyncio.get_running_loop()
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_UNDER_WAY_MAX)

    async def read() -> None:
        data = b"?"
        while data:
            data = await reader.read(_CHUNK_BYTES)
            await under_way.put((loop.time() + delay_s, data))

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        while True:
            due_s, data = await under_way.get()
            await asyncio.sleep(due_s - loop.time())
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


async def run(paths: Sequence[DelayedPath]) -> None:
    """Open all paths, say so, and serve until SIGTERM or Ctrl-C.

    Raises:
        PathError: one cannot be listened on.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    for path in paths:
        try:
            await (_open_udp(path) if path.protocol == "udp" else _open_tcp(path))
        except OSError as error:
            raise PathError(f"path ({path}) cannot be listened on: {error.strerror}") from None
    print(f"ready: {len(paths)} delayed paths", flush=True)
    await stop.wait()


def ask_for_priority(nice: int = -20) -> None:
    """Before others, where this user may ask for that: a network does not wait for a processor."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        Path("/proc/self/autogroup").write_text(str(nice))  # which counts against other sessions


def event_loop() -> asyncio.AbstractEventLoop:
    """A loop on select(): the usual epoll waits whole milliseconds, half of a short round trip."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    try:
        paths = [DelayedPath.parse(text) for text in arguments]
        ask_for_priority()
        with asyncio.Runner(loop_factory=event_loop) as runner:
            runner.run(run(paths))
    except PathError as error:
        print(f"delay_proxy: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
