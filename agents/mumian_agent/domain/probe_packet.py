"""The datagrams of probes: a request and its answer, alike in size and different in kind.

An answer is as long as its request, so nobody can use a reflector to send more than he sends himself. An
answer is no request, so two reflectors that somebody sets upon one another by a forged sender fall silent
at once. And the nonce, which only who sees the packets knows, keeps others from answering for the
reflector.
"""

from __future__ import annotations

PACKET_BYTES = 32
NONCE_BYTES = 27
_REQUEST, _ANSWER = b"MUP1\x01", b"MUP1\x02"


def request(nonce: bytes) -> bytes:
    """A request; `nonce` has 27 bytes."""
    return _REQUEST + nonce


def answer_to(datagram: bytes) -> bytes | None:
    """What a reflector says to a datagram; None: nothing, for it is no request."""
    if len(datagram) != PACKET_BYTES or not datagram.startswith(_REQUEST):
        return None
    return _ANSWER + datagram[-NONCE_BYTES:]


def nonce_of_answer(datagram: bytes) -> bytes | None:
    """The nonce that an answer brings back; None when the datagram is no answer."""
    if len(datagram) != PACKET_BYTES or not datagram.startswith(_ANSWER):
        return None
    return datagram[-NONCE_BYTES:]
