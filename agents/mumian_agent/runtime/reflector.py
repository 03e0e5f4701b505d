"""Answers probes: every datagram of at most 64 bytes goes back unchanged."""

from __future__ import annotations

import socket
import threading

from mumian_agent.domain.fields import host_and_port

DATAGRAM_BYTES_MAX = 64


class ReflectorError(Exception):
    """The address cannot be listened on."""


class Reflector:
    """A UDP echo, in a thread of its own: what the agent does must not lengthen its peers' round trips."""

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

    def start(self) -> None:
        """Answer in the background."""
        threading.Thread(target=self.serve, name="reflector", daemon=True).start()

    def serve(self) -> None:
        """Answer for ever."""
        while True:
            try:
                # One byte more than allowed, to see which datagrams are too long.
                data, sender = self._socket.recvfrom(DATAGRAM_BYTES_MAX + 1)
                if len(data) <= DATAGRAM_BYTES_MAX:
                    self._socket.sendto(data, sender)
            except OSError:
                continue  # the sender is gone, and says so
