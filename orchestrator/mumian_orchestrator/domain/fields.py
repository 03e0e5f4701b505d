"""Reading a mapping field by field, so that every complaint names the field at fault."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class FieldError(Exception):
    """A file that cannot be used, in one line that names the field and says what to do."""


class Fields:
    """One mapping of the file. Each `take_*` removes a field; `end` refuses what is left."""

    def __init__(self, raw: object, path: str) -> None:
        if not isinstance(raw, Mapping):
            raise FieldError(f"{path or 'the file'} ({raw!r}) must be a mapping")
        self._raw, self._path, self._known = dict(raw), path, list[str]()

    def at(self, name: str) -> str:
        """The field's full name."""
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        """Whether the field is given."""
        self._known.append(name)
        return name in self._raw

    def take(self, name: str, default: Any = None) -> Any:
        """The field as it stands.

        Raises:
            FieldError: it is not there and has no default.
        """
        self._known.append(name)
        if name in self._raw:
            return self._raw.pop(name)
        if default is None:
            raise FieldError(f"{self.at(name)} is missing; it must be given")
        return default

    def number(self, name: str, default: float | None = None, *, least: float = 0.0) -> float:
        """A finite number, at least `least`."""
        return number(self.take(name, default), self.at(name), least)

    def whole(self, name: str, default: int | None = None, *, least: int = 0) -> int:
        """A whole number, at least `least`."""
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise FieldError(f"{self.at(name)} ({value!r}) must be a whole number of at least {least}")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A text that is not empty, unless the default is."""
        value = self.take(name, default)
        if not isinstance(value, str) or not (value or default == ""):
            raise FieldError(f"{self.at(name)} ({value!r}) must be a text")
        return value

    def day(self, name: str, default: float | None = None) -> tuple[float, ...]:
        """24 numbers, one an hour of the day; a single number holds all day."""
        value = self.take(name, default)
        values = value if isinstance(value, list) else [value] * 24
        if len(values) != 24:
            raise FieldError(
                f"{self.at(name)} has {len(values)} values; give one, or one for each of 24 hours"
            )
        return tuple(number(v, f"{self.at(name)}[{hour}]", 0.0) for hour, v in enumerate(values))

    def numbers(self, name: str) -> list[float]:
        """A list of numbers of at least 0; not given: none."""
        value = self.take(name, [])
        if not isinstance(value, list):
            raise FieldError(f"{self.at(name)} ({value!r}) must be a list of numbers")
        return [number(v, f"{self.at(name)}[{index}]", 0.0) for index, v in enumerate(value)]

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; not given: none."""
        value = self.take(name, [])
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise FieldError(f"{self.at(name)} ({value!r}) must be a list of texts")
        return tuple(value)

    def texts_by_name(self, name: str) -> tuple[tuple[str, str], ...]:
        """A mapping of names to texts, in order of the names; not given: none."""
        found = []
        for key, value in self._mapping(name).items():
            if not isinstance(value, str) or not value:
                raise FieldError(f"{self.at(name)}.{key} ({value!r}) must be a text; put it in quotes")
            found.append((key, value))
        return tuple(sorted(found))

    def numbers_by_name(self, name: str) -> tuple[tuple[str, float], ...]:
        """A mapping of names to numbers of at least 0, in order of the names; not given: none."""
        where = self.at(name)
        return tuple(sorted((k, number(v, f"{where}.{k}", 0.0)) for k, v in self._mapping(name).items()))

    def _mapping(self, name: str) -> Mapping[str, Any]:
        value = self.take(name, {})
        if not isinstance(value, Mapping) or not all(isinstance(key, str) and key for key in value):
            raise FieldError(f"{self.at(name)} ({value!r}) must be a mapping of names")
        return value

    def items(self, name: str, read: Callable[[Fields], T], *, least: int = 1) -> tuple[T, ...]:
        """A list of mappings."""
        value = self.take(name, [] if least == 0 else None)
        if not isinstance(value, list) or len(value) < least:
            raise FieldError(f"{self.at(name)} must be a list of at least {least}")
        found = []
        for index, raw in enumerate(value):
            fields = Fields(raw, f"{self.at(name)}[{index}]")
            found.append(read(fields))
            fields.end()
        return tuple(found)

    def names(self, name: str, known: Mapping[str, object]) -> tuple[str, ...]:
        """Some of the names that are known; not given: all of them."""
        value = self.take(name, list(known))
        for entry in value if isinstance(value, list) else [value]:
            self.known(name, entry, known)
        return tuple(value) if isinstance(value, list) else (value,)

    def known(self, name: str, value: object, known: Mapping[str, object]) -> None:
        """Refuse a name that is not known."""
        if value not in known:
            near = difflib.get_close_matches(str(value), known, 1)
            advice = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise FieldError(f"{self.at(name)} ({value!r}) is unknown; {advice}")

    def end(self) -> None:
        """Refuse fields that nobody has asked for."""
        for name in self._raw:
            near = difflib.get_close_matches(str(name), self._known, 1)
            advice = f"did you mean {near[0]}?" if near else f"known: {', '.join(self._known)}"
            raise FieldError(f"{self.at(str(name))} is unknown; {advice}")


def number(value: object, path: str, least: float) -> float:
    """A finite number, at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e15:
        raise FieldError(f"{path} ({value!r}) must be a number of at least {least:g}")
    return float(value)
