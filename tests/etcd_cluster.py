"""Real etcd servers for tests: one or three, that can be killed, stopped and started again on their data."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme
from mumian_orchestrator.main.embedded import find_etcd
from mumian_orchestrator.main.free_ports import free_port

from tests.processes import Running, wait_for_port


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of one side of a connection: the authority of the other, and its own proof."""

    ca: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path) -> tuple[Tls, Tls]:
    """Of a new authority: for servers on the loopback, and for one client."""
    authority = trustme.CA()
    sides = []
    for side, name in (("server", "127.0.0.1"), ("client", "coordinator")):
        issued = authority.issue_cert(name)
        files = Tls(folder / "ca.pem", folder / f"{side}.pem", folder / f"{side}.key")
        authority.cert_pem.write_to_path(files.ca)
        issued.cert_chain_pems[0].write_to_path(files.certificate)
        issued.private_key_pem.write_to_path(files.key)
        sides.append(files)
    return sides[0], sides[1]


class EtcdServer:
    """One member; its data outlive its process."""

    def __init__(self, name: str, folder: Path, tls: Tls | None, more: Sequence[str]) -> None:
        self.name, self.endpoint = name, f"127.0.0.1:{free_port()}"
        self.peer_url = f"http://127.0.0.1:{free_port()}"
        self._folder, self._tls, self._more = folder, tls, more
        self._running: Running | None = None

    def start(self, cluster: Sequence[EtcdServer]) -> None:
        """Start the process; `wait` says when it listens."""
        client_url = f"{'https' if self._tls else 'http'}://{self.endpoint}"
        argv = [
            *(find_etcd(), "--name", self.name, "--data-dir", str(self._folder / self.name)),
            *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
            *("--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url),
            *("--initial-cluster", ",".join(f"{member.name}={member.peer_url}" for member in cluster)),
            *("--log-level", "error", *self._more),
        ]
        if self._tls:
            argv += ["--client-cert-auth", "--trusted-ca-file", str(self._tls.ca)]
            argv += ["--cert-file", str(self._tls.certificate), "--key-file", str(self._tls.key)]
        self._running = Running(argv, self._folder, self.name)

    def wait(self) -> None:
        """Wait until it listens."""
        wait_for_port(self.endpoint)

    def kill(self) -> None:
        """kill -9."""
        if self._running:
            self._running.sweep()
            self._running = None

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT, for example."""
        if self._running:
            self._running.process.send_signal(number)


class EtcdCluster:
    """A cluster of its own; use it as a context, at whose end its processes are gone."""

    def __init__(self, folder: Path, size: int = 1, tls: Tls | None = None, more: Sequence[str] = ()) -> None:
        self.servers = [EtcdServer(f"etcd{number}", folder, tls, more) for number in range(size)]

    def __enter__(self) -> EtcdCluster:
        for server in self.servers:
            server.start(self.servers)
        for server in self.servers:
            server.wait()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.kill()

    @property
    def endpoints(self) -> list[str]:
        """Of all members, as host:port."""
        return [server.endpoint for server in self.servers]

    def restart(self, server: EtcdServer) -> None:
        """Start a killed member again, on its data."""
        server.start(self.servers)
        server.wait()


class TcpProxy:
    """Stands between clients and one server, on the loopback, so that their connections can be cut."""

    def __init__(self, target: str) -> None:
        self._host, port = target.split(":")
        self._port = int(port)
        self._whole = True
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pipes: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()

    def cut(self) -> None:
        """Break every connection, and refuse new ones until `mend`."""
        self._whole = False
        for pipe in self._pipes:
            pipe.cancel()

    def hold(self) -> None:
        """Let nothing through from now on, and say nothing of it."""
        self._flowing.clear()

    def mend(self) -> None:
        """Let connections through again."""
        self._whole = True
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = None
        try:
            if self._whole:
                there_reader, there = await asyncio.open_connection(self._host, self._port)
                pipes = [
                    asyncio.create_task(self._pipe(reader, there)),
                    asyncio.create_task(self._pipe(there_reader, writer)),
                ]
                self._pipes.update(pipes)
                await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
                for pipe in pipes:
                    pipe.cancel()
                self._pipes.difference_update(pipes)
        finally:
            writer.close()
            if there:
                there.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
