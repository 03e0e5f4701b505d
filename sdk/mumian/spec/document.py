"""A YAML document as values that know their line, and the faults found in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml
from yaml import MappingNode, MarkedYAMLError, Node, ScalarNode, SequenceNode, YAMLError

from mumian.errors import FieldViolation, MumianError

Parsed = TypeVar("Parsed")

FILE_BYTES_MAX = 4 * 1024 * 1024
_TAG = "tag:yaml.org,2002:"
_KINDS = {"int": "a number", "float": "a number", "bool": "true or false", "null": "nothing"}
_SHOWN_MAX = 60


# What plain words are to YAML 1.2 (its core schema), with the characters that each begins with.
_PLAIN = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": (r"~|null|Null|NULL|", ("~", "n", "N", "")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


class _Loader(yaml.SafeLoader):
    """The library's own takes words for what they are to YAML 1.1, where "no" is a truth value."""


_Loader.yaml_implicit_resolvers = {}
for kind, (words, beginnings) in _PLAIN.items():
    _Loader.add_implicit_resolver(f"{_TAG}{kind}", re.compile(f"^(?:{words})$"), list(beginnings))


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What is wrong, and where: the line counts from 1, the key is a path such as `resources.memory`."""

    line: int
    key: str
    description: str


class SpecError(MumianError):
    """A file that is no job spec, with everything that is wrong with it."""

    def __init__(self, path: Path, faults: Sequence[Fault]) -> None:
        self.path = path
        self.faults = tuple(sorted(faults))
        super().__init__(
            "INVALID_FIELD",
            "\n".join(f"{path}:{f.line}: {f.key} {f.description}".replace(":  ", ": ") for f in self.faults),
            [FieldViolation(fault.key, fault.description) for fault in self.faults],
        )


class Document:
    """One document of a file: its root value, its faults so far, and the line that each field came from."""

    def __init__(self, path: Path, node: Node | None = None) -> None:
        self.path, self._node = path, node
        self.faults: list[Fault] = []
        # By field path of the API ("task_groups[0].latency_slo.budget_us").
        self.origins: dict[str, tuple[int, str]] = {}
        # Folders beside the file, by the field that is to name what they hold.
        self.uploads: dict[str, Path] = {}

    @classmethod
    def all_of(cls, path: Path) -> list[Document]:
        """The documents of a file, at least one; a fault that is of the whole file is of the only one."""
        whole = cls(path)
        try:
            with path.open("rb") as file:
                # A device or a pipe has no size, and perhaps no end.
                raw = file.read(FILE_BYTES_MAX + 1)
            if len(raw) > FILE_BYTES_MAX:
                whole.fault(1, "", f"the file is over {FILE_BYTES_MAX // 1024**2} MiB; it is no job spec")
                return [whole]
            text = raw.decode("utf-8")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise MumianError("INVALID_FIELD", f"file ({path}) cannot be read: {reason}") from None
        except UnicodeDecodeError:
            whole.fault(1, "", "the file is not UTF-8 text; save it as UTF-8")
            return [whole]
        try:
            # A `---` at an end leaves an empty document.
            nodes = [node for node in yaml.compose_all(text, Loader=_Loader) if not _is_empty(node)]
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            told = " ".join(part for part in (error.context, error.problem) if part)
            whole.fault(mark.line + 1 if mark else 1, "", f"no valid YAML: {told}")
            return [whole]
        except (YAMLError, RecursionError, ValueError) as error:
            whole.fault(
                1, "", f"no valid YAML: {str(error).splitlines()[0] if str(error) else 'nested too deeply'}"
            )
            return [whole]
        if not nodes:
            whole.fault(1, "", "the file is empty; write at least `command: [echo, hello]`")
        return [cls(path, node) for node in nodes] or [whole]

    def root(self) -> Value | None:
        """The document's value; None, with a fault, where there is none."""
        if self._node is None:
            return None
        return Value(self, self._node, "", self._node.start_mark.line + 1)

    def fault(self, line: int, key: str, description: str) -> None:
        """Note a fault and go on."""
        self.faults.append(Fault(line, key, description))


class Value:
    """One value and the key that it stands under. Reading it notes faults and then gives None or nothing."""

    def __init__(self, document: Document, node: Node, key: str, line: int) -> None:
        self.document, self.key, self.line = document, key, line
        self._node = node

    def fault(self, description: str) -> None:
        """Note that this value is wrong; the value itself is put in front of the description."""
        self.document.fault(self.line, self.key, f"({self._shown()}) {description}")

    def is_scalar(self) -> bool:
        """Whether it is one word, number or text."""
        return isinstance(self._node, ScalarNode)

    def is_list(self) -> bool:
        """Whether it is a list."""
        return isinstance(self._node, SequenceNode)

    def is_mapping(self) -> bool:
        """Whether it has keys."""
        return isinstance(self._node, MappingNode)

    def parsed(self, parse: Callable[[str], Parsed]) -> Parsed | None:
        """A scalar through a function that raises ValueError."""
        if not self.is_scalar() or self._type() in ("bool", "null"):
            self.fault(_advice_of(parse))
            return None
        try:
            return parse(str(self._node.value))
        except ValueError as error:
            self.fault(str(error))
            return None

    def text(self) -> str | None:
        """A text; a number or a truth value is refused, because YAML may have changed it."""
        if not self.is_scalar() or self._type() == "null":
            self.fault("must be text")
        elif self._type() != "str":
            kind = _KINDS.get(self._type(), "no text")
            self.fault(f'is {kind} to YAML and must be text; write "{self._node.value}"')
        else:
            return str(self._node.value)
        return None

    def word(self) -> str | None:
        """A scalar as it is written, whatever YAML takes it for (a variable's value such as 8)."""
        if not self.is_scalar() or self._type() == "null":
            self.fault('must be one text or number; write "" for an empty one')
            return None
        return str(self._node.value)

    def choice(self, known: Iterable[str], aliases: Mapping[str, Sequence[str]] | None = None) -> str | None:
        """One of some words; what else people call them is named in the advice."""
        names = list(known)
        given = str(self._node.value) if self.is_scalar() else ""
        if given in names:
            return given
        meant = [name for name, others in (aliases or {}).items() if given in others]
        hint = f"; write {meant[0]}" if meant else _did_you_mean(given, names)
        self.fault(f"must be {_either(names)}{hint}")
        return None

    def items(self) -> Iterator[Value]:
        """The items of a list."""
        if not isinstance(self._node, SequenceNode):
            self.fault("must be a list; write [a, b]")
            return
        for number, node in enumerate(self._node.value):
            yield Value(self.document, node, f"{self.key}[{number}]", node.start_mark.line + 1)

    def texts(self) -> list[str]:
        """The texts of a list, or one text by itself."""
        values = [self] if self.is_scalar() else self.items()
        return [text for text in (value.text() for value in values) if text is not None]

    def words(self) -> list[str]:
        """The scalars of a list as they are written."""
        return [word for word in (value.word() for value in self.items()) if word is not None]

    def entries(self, example: str) -> Iterator[tuple[str, Value]]:
        """The entries of a mapping with whatever keys; a key that comes twice is a fault."""
        if not isinstance(self._node, MappingNode):
            self.fault(f"must have keys of its own; write {example}")
            return
        seen: dict[str, int] = {}
        for key_node, value_node in self._node.value:
            line = key_node.start_mark.line + 1
            name = str(key_node.value) if isinstance(key_node, ScalarNode) else "?"
            path = f"{self.key}.{name}" if self.key else name
            if name in seen:
                self.document.fault(line, path, f"is there twice, first in line {seen[name]}; remove one")
                continue
            seen[name] = line
            yield name, Value(self.document, value_node, path, line)

    def fields(
        self, known: Iterable[str], example: str, aliases: Mapping[str, str]
    ) -> Iterator[tuple[str, Value]]:
        """The entries of a mapping whose keys are fixed; another key is a fault.

        `aliases` are what other systems call a key: only the advice uses them.
        """
        names = list(known)
        for name, value in self.entries(example):
            if name in names:
                yield name, value
            else:
                meant = aliases.get(name.lower())
                hint = f"; did you mean {meant}?" if meant in names else _did_you_mean(name, names)
                hint = hint or f"; known here: {', '.join(sorted(names))}"
                self.document.fault(value.line, value.key, f"is no key of a job spec{hint}")

    def _type(self) -> str:
        return str(self._node.tag or "").removeprefix(_TAG)

    def _shown(self) -> str:
        if isinstance(self._node, ScalarNode):
            text = str(self._node.value).replace("\n", "\\n")
            if self._type() == "null" and not text:
                return "nothing"
        elif isinstance(self._node, SequenceNode):
            return f"a list of {len(self._node.value)}"
        else:
            return "a mapping"
        return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 3]}..."


def _is_empty(node: Node | None) -> bool:
    return node is None or (isinstance(node, ScalarNode) and not node.value and node.style is None)


def _advice_of(parse: Callable[[str], object]) -> str:
    """What a parser wants, from what it says to something that is nothing."""
    try:
        parse("")
    except ValueError as error:
        return str(error)
    return "must be one text or number"


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    begun = [other for other in known if len(name) >= 3 and other.startswith(name.lower())]
    near = begun or difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
