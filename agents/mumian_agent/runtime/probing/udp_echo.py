"""Round trips by UDP, to any number of addresses over one socket.

Nothing wakes this process when an answer comes: the kernel stamps each on arrival, and whoever probes
collects them when he sends the next ones. That is what makes many targets cheap.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

from mumian_agent.domain.probe_packet import NONCE_BYTES, PACKET_BYTES, nonce_of_answer, request

_LOST_AFTER_NS = 2_000_000_000
# A sample during which somebody has set the clock is none: stamps are by the wall clock.
_CLOCK_STEP_NS = 1_000_000
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")


class UdpAddress(NamedTuple):
    """Where a datagram goes."""

    family: int
    address: Any  # as the family has it


class _Sent(NamedTuple):
    target: Hashable
    clock_ns: int
    monotonic_ns: int


class UdpEcho:
    """Probes that are under way. Who sends them is the caller's to name: any key does."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}  # by family
        self._sent: dict[bytes, _Sent] = {}  # by nonce, oldest first

    def send(self, target: Hashable, to: UdpAddress) -> None:
        """Send one probe.

        Raises:
            OSError: this machine has no way there.
        """
        nonce = os.urandom(NONCE_BYTES)
        through = self._sockets.get(to.family) or self._open(to.family)
        datagram = request(nonce)
        self._sent[nonce] = _Sent(target, time.time_ns(), time.monotonic_ns())
        try:
            through.sendto(datagram, to.address)
        except BlockingIOError:
            del self._sent[nonce]  # the queue is full; the next one may find room
        except OSError:
            del self._sent[nonce]
            raise

    def answers(self) -> Iterator[tuple[Hashable, int]]:
        """What has come back since the last call: the target of each, and its round trip in nanoseconds."""
        for through in self._sockets.values():
            while True:
                try:
                    data, ancillary, _, _ = through.recvmsg(
                        PACKET_BYTES + 1, socket.CMSG_SPACE(_TIMESPEC.size)
                    )
                except BlockingIOError:
                    break
                except OSError:
                    continue  # some sender before has been refused
                sent = self._sent.pop(nonce_of_answer(data) or b"", None)
                if sent is None:
                    continue
                clock_ns = time.time_ns()
                step_ns = (clock_ns - sent.clock_ns) - (time.monotonic_ns() - sent.monotonic_ns)
                if abs(step_ns) < _CLOCK_STEP_NS:
                    yield sent.target, max(0, _arrival_ns(ancillary, clock_ns) - sent.clock_ns)
        self._forget_lost()

    def close(self) -> None:
        """Send and hear nothing any more."""
        for through in self._sockets.values():
            through.close()
        self._sockets.clear()

    def _open(self, family: int) -> socket.socket:
        through = socket.socket(family, socket.SOCK_DGRAM)
        through.setblocking(False)
        through.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._sockets[family] = through
        return through

    def _forget_lost(self) -> None:
        oldest_ns = time.monotonic_ns() - _LOST_AFTER_NS
        while self._sent:
            nonce, sent = next(iter(self._sent.items()))
            if sent.monotonic_ns >= oldest_ns:
                return
            del self._sent[nonce]


def _arrival_ns(ancillary: list[tuple[int, int, bytes]], default_ns: int) -> int:
    """The kernel's stamp, by the wall clock."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return default_ns
