"""Ports of this machine for what is started on it."""

from __future__ import annotations

import contextlib
import secrets
import socket

# Below the ports that the kernel gives to outgoing connections, above those of Ray's workers: between this
# answer and its use nobody takes it, whatever else starts meanwhile.
_PORTS = range(20_000, 32_000)
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, by TCP or UDP; never the same one twice."""
    while True:
        port = secrets.choice(_PORTS)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.bind(("127.0.0.1", port))
        return True
    return False
