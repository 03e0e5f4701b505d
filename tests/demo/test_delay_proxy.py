"""The demo's network paths: late by the time that they promise, and otherwise invisible."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mumian_orchestrator.main.free_ports import free_port

from examples.demo import delay_proxy
from examples.demo.delay_proxy import DelayedPath, PathError
from tests.processes import Running

RTT_MS = 30.0
HOST = "127.0.0.1"
StartPath = Callable[[str, int], DelayedPath]


@pytest.fixture
def start_path(tmp_path: Path) -> Iterator[StartPath]:
    """Starts a proxy with one path to a port of this machine."""
    started: list[Running] = []

    def start(protocol: str, target_port: int) -> DelayedPath:
        path = DelayedPath(protocol, (HOST, free_port()), (HOST, target_port), RTT_MS)
        running = Running([sys.executable, delay_proxy.__file__, str(path)], tmp_path, protocol)
        started.append(running)
        running.wait_ready()
        return path

    yield start
    for running in started:
        running.sweep()


def echo_udp() -> int:
    """A UDP echo; its port."""
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.bind((HOST, 0))

    def serve() -> None:
        while True:
            data, sender = echo.recvfrom(65536)
            echo.sendto(data, sender)

    threading.Thread(target=serve, daemon=True).start()
    return int(echo.getsockname()[1])


def echo_tcp() -> int:
    """A TCP echo of one connection; its port."""
    listening = socket.create_server((HOST, 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, listening:
            while data := connection.recv(65536):
                connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return int(listening.getsockname()[1])


def send_all(client: socket.socket, data: bytes) -> None:
    """Send, and say that this was all."""
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


def test_datagrams_come_back_unchanged_and_not_before_the_round_trip(start_path: StartPath) -> None:
    path = start_path("udp", echo_udp())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(path.listen)
        for _ in range(10):
            sent, begun_s = os.urandom(64), time.perf_counter()
            client.send(sent)
            assert client.recv(65536) == sent
            assert time.perf_counter() - begun_s >= RTT_MS / 1000


def test_senders_get_only_their_own_answers(start_path: StartPath) -> None:
    path = start_path("udp", echo_udp())
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(5)]
    for number, client in enumerate(clients):
        client.settimeout(5)
        client.sendto(bytes([number]), path.listen)
    assert [client.recv(16) for client in clients] == [bytes([number]) for number in range(5)]
    for client in clients:
        client.close()


def test_a_stream_comes_back_unchanged_in_order_and_not_before_the_round_trip(start_path: StartPath) -> None:
    path = start_path("tcp", echo_tcp())
    sent, received = os.urandom(2_000_000), bytearray()
    with socket.create_connection(path.listen, 5) as client:
        begun_s = time.perf_counter()
        threading.Thread(target=send_all, args=(client, sent)).start()
        first_s = 0.0
        while data := client.recv(65536):
            first_s = first_s or time.perf_counter() - begun_s
            received += data
    assert bytes(received) == sent
    assert first_s >= RTT_MS / 1000


def test_a_target_that_is_not_there_ends_the_connection(start_path: StartPath) -> None:
    path = start_path("tcp", free_port())
    with socket.create_connection(path.listen, 5) as client:
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    "text", ["", "udp:x", "icmp:127.0.0.1:1:127.0.0.1:2:3", "udp:127.0.0.1:1:127.0.0.1:2:-3"]
)
def test_a_malformed_path_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(PathError, match="must"):
        DelayedPath.parse(text)
    ended = subprocess.run(
        [sys.executable, delay_proxy.__file__, text], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
