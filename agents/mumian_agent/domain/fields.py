"""Reads one section of a configuration; every fault is one line with the field, its value and advice."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final


class ConfigError(Exception):
    """A configuration that cannot be used, in one line that names the field and says what to do."""


class _Required:
    """Stands for "there is no default"."""


REQUIRED: Final = _Required()
# Before the address of a reflector that is probed by gRPC.
GRPC = "grpc://"


class Fields:
    """The fields of one mapping. Ask for each by name, then `finish` refuses those nobody asked for."""

    def __init__(self, raw: object, path: str = "") -> None:
        """
        Raises:
            ConfigError: `raw` is no mapping of names to values. Nothing at all counts as an empty one.
        """
        self._path = path
        if raw is None:
            raw = {}
        if not isinstance(raw, Mapping) or not all(isinstance(name, str) for name in raw):
            raise ConfigError(
                f"{path or 'the configuration'} ({raw!r}) must be a mapping of fields to values"
            )
        self._raw: Mapping[str, Any] = raw
        self._asked: list[str] = []

    def path(self, name: str) -> str:
        """How the user knows a field."""
        return f"{self._path}.{name}" if self._path else name

    def names(self) -> list[str]:
        """The fields that are there."""
        return list(self._raw)

    def section(self, name: str) -> Fields:
        """A mapping below; empty where it is absent."""
        return Fields(self._take(name, None), self.path(name))

    def sections(self, name: str) -> list[Fields]:
        """A list of mappings below; empty where it is absent."""
        raw = self._take(name, None)
        if raw is None:
            return []
        if not isinstance(raw, list):
            raise ConfigError(f"{self.path(name)} ({raw!r}) must be a list")
        return [Fields(entry, f"{self.path(name)}[{number}]") for number, entry in enumerate(raw)]

    def text(self, name: str, default: str | _Required = REQUIRED) -> str:
        """A text that is not empty."""
        value = self._take(name, default)
        if not isinstance(value, str) or (not value and value is not default):
            raise ConfigError(f"{self.path(name)} ({value!r}) must be a text; put it in quotes")
        return value

    def choice(self, name: str, choices: Iterable[str], default: str | _Required = REQUIRED) -> str:
        """One of some words."""
        value, known = self._take(name, default), list(choices)
        if value not in known:
            raise ConfigError(f"{self.path(name)} ({value!r}) is unknown; use one of {', '.join(known)}")
        return str(value)

    def number(self, name: str, default: int | Decimal | _Required | None = REQUIRED) -> Decimal | None:
        """A decimal number of 0 or more; None only where that is the default."""
        value = self._take(name, default)
        if value is None and default is None:
            return None
        try:
            if isinstance(value, bool):
                raise InvalidOperation
            number = Decimal(str(value))
        except InvalidOperation:
            raise ConfigError(f"{self.path(name)} ({value!r}) must be a number") from None
        if not number.is_finite() or number < 0:
            raise ConfigError(f"{self.path(name)} ({value}) must be 0 or more")
        return number

    def scaled(self, name: str, factor: int, default: int | _Required = REQUIRED) -> int:
        """A decimal number of 0 or more, times a factor, rounded to a whole one."""
        number = self.number(name, default)
        assert number is not None
        return round(number * factor)

    def whole(self, name: str, default: int | _Required = REQUIRED, least: int = 0) -> int:
        """A whole number of at least `least`."""
        value = self._take(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"{self.path(name)} ({value!r}) must be a whole number")
        if value < least:
            raise ConfigError(f"{self.path(name)} ({value}) must be {least} or more")
        return value

    def optional_whole(self, name: str, least: int = 0) -> int | None:
        """A whole number of at least `least`, or None where it is absent."""
        self._asked.append(name)
        return self.whole(name, least=least) if name in self._raw else None

    def address(self, name: str, default: str | _Required = REQUIRED) -> str:
        """A host:port."""
        return checked_address(self.path(name), self._take(name, default))

    def addresses(self, name: str, default: str | _Required = REQUIRED) -> tuple[str, ...]:
        """One host:port, or a list of them."""
        value = self._take(name, default)
        given = value if isinstance(value, list) else [value]
        if not given:
            raise ConfigError(f"{self.path(name)} ([]) must have at least one host:port")
        return tuple(checked_address(self.path(name), address) for address in given)

    def texts(self, name: str) -> dict[str, str]:
        """A mapping of names to texts. Numbers become texts: a label `gen: 3` means "3"."""
        below = self.section(name)
        values = {key: below._take(key, REQUIRED) for key in below.names()}
        for key, value in values.items():
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                raise ConfigError(f"{below.path(key)} ({value!r}) must be a text; put it in quotes")
        return {key: str(value) for key, value in values.items()}

    def finish(self) -> None:
        """
        Raises:
            ConfigError: there is a field that nobody asked for.
        """
        for name in self._raw:
            if name not in self._asked:
                near = difflib.get_close_matches(name, self._asked, 1)
                advice = f"did you mean {near[0]}?" if near else f"known here: {', '.join(self._asked)}"
                raise ConfigError(f"{self.path(name)} is unknown; {advice}")

    def _take(self, name: str, default: object) -> Any:
        self._asked.append(name)
        value = self._raw.get(name, default)
        if value is REQUIRED:
            raise ConfigError(f"{self.path(name)} is missing; add it")
        return value


def checked_address(path: str, value: object) -> str:
    """The value itself, when it is a host:port.

    Raises:
        ConfigError: it has another form.
    """
    host, _, port = str(value).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{path} ({value!r}) must be host:port, such as 127.0.0.1:7070")
    return str(value)


def checked_reflector(path: str, value: object) -> str:
    """The value itself, when it is a host:port (UDP), or one behind grpc://.

    Raises:
        ConfigError: it has another form.
    """
    checked_address(path, str(value).removeprefix(GRPC))
    return str(value)


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of a checked address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
