"""TCP ports of this machine's services."""

from __future__ import annotations

import asyncio
import contextlib
import socket

_TRY_FIRST_S, _TRY_LAST_S = 0.005, 0.1


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def is_free(host: str, port: int) -> bool:
    """Whether a service could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


async def wait_until_it_accepts(host: str, port: int) -> None:
    """Return as soon as a connection to the port is accepted."""
    delay_s = _TRY_FIRST_S
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, _TRY_LAST_S)
