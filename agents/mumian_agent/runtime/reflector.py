"""Answers probes, at no more than a stated rate; everything else gets silence."""

from __future__ import annotations

import socket
import threading
import time

from mumian_agent.domain.fields import host_and_port
from mumian_agent.domain.probe_packet import PACKET_BYTES, answer_to
from mumian_agent.domain.rate_limit import RateLimit

# A site sends a target five probes a second, and a burst of 25 first; many sites may share one address.
SENDER_PER_SECOND, ALL_PER_SECOND = 1000, 20_000
_SENDERS_MAX = 4096


class ReflectorError(Exception):
    """The address cannot be listened on."""


class Reflector:
    """In a thread of its own: what the agent does must not lengthen its peers' round trips."""

    def __init__(self, listen: str) -> None:
        """Listen.

        Raises:
            ReflectorError: the address is taken or not this machine's.
        """
        host, port = host_and_port(listen)
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, kind)
            self._socket.bind(address)
        except OSError as error:
            raise ReflectorError(
                f"reflector.listen ({listen}) cannot be listened on: {error.strerror}; choose another port"
            ) from None

    def close(self) -> None:
        """Listen no more; only before it has begun to answer."""
        self._socket.close()

    def start(self) -> None:
        """Answer in the background."""
        threading.Thread(target=self.serve, name="reflector", daemon=True).start()

    def serve(self) -> None:
        """Answer for ever."""
        limit = RateLimit(SENDER_PER_SECOND, ALL_PER_SECOND, _SENDERS_MAX)
        while True:
            try:
                # One byte more than allowed, to see which datagrams are too long.
                datagram, sender = self._socket.recvfrom(PACKET_BYTES + 1)
                answer = answer_to(datagram)
                if answer is not None and limit.admits(sender[0], time.monotonic_ns()):
                    self._socket.sendto(answer, sender)
            except OSError:
                continue  # the sender is gone, and says so
