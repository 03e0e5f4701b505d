"""TCP ports of this machine's services."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping

from mumian.api.v1.job_pb2 import Port

VARIABLE = "MUMIAN_PORT"


class PortTakenError(Exception):
    """Somebody else listens on a port that a task wants."""


def settle(wanted: Iterable[Port], host: str, before: Mapping[str, int]) -> dict[str, int]:
    """The numbers of a task's ports, by name.

    Args:
        before: what a task that is restarted had; it gets the same again where they are free.

    Raises:
        PortTakenError: one with a fixed number is not free.
    """
    numbers: dict[str, int] = {}
    for port in wanted:
        number = port.number or before.get(port.name, 0)
        if number and _is_free(host, number):
            numbers[port.name] = number
        elif port.number:
            raise PortTakenError(
                f"port {port.name} ({number}) is taken on {host}; choose another, or `auto` for a free one"
            )
        else:
            numbers[port.name] = _free_port(host, numbers.values())
    return numbers


def variables(numbers: Mapping[str, int]) -> dict[str, str]:
    """What tells a task its ports: the first one, and each by its name."""
    named = {f"{VARIABLE}_{name.upper().replace('-', '_')}": str(n) for name, n in numbers.items()}
    return {VARIABLE: str(next(iter(numbers.values()))), **named} if numbers else {}


def _free_port(host: str, taken: Iterable[int]) -> int:
    """One that nobody listens on now."""
    while True:
        with socket.socket() as probe:
            probe.bind((host, 0))
            number = int(probe.getsockname()[1])
        if number not in taken:
            return number


def _is_free(host: str, number: int) -> bool:
    """Whether a service could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError:
            return False
    return True
