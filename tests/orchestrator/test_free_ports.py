"""Ports that are given out are free, for TCP and for UDP: the demo once lost a path to another socket."""

from __future__ import annotations

import contextlib
import socket

import pytest
from mumian_orchestrator.main import free_ports


def test_what_anybody_holds_is_not_given_nor_anything_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as held:
        ports = [free_ports.free_port() for _ in range(4)]
        for port, kind in zip(ports, (socket.SOCK_DGRAM, socket.SOCK_STREAM), strict=False):
            held.enter_context(socket.socket(socket.AF_INET, kind)).bind(("127.0.0.1", port))
        monkeypatch.setattr(free_ports, "_PORTS", ports)
        monkeypatch.setattr(free_ports, "_given", set())
        assert {free_ports.free_port() for _ in range(2)} == set(ports[2:])
