"""What the city and the operators publish, as YAML: which it is, and its fields in the ledger's units."""

from __future__ import annotations

import difflib
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml

from mumian_orchestrator.domain.fields import FieldError, Fields
from mumian_orchestrator.domain.names import is_name

DOCUMENT_BYTES_MAX = 256 * 1024
KINDS = ("registry", "vouchers", "offers", "pue")
_MICRO = 10**6


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a few bytes of them can make a document without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise FieldError(f"line {line}: aliases (*) are not taken")
        return super().compose_node(parent, index)


def read(text: str) -> Fields:
    """The fields of a document.

    Raises:
        FieldError: it is too large, no YAML, or no mapping.
    """
    size_bytes = len(text.encode())
    if size_bytes > DOCUMENT_BYTES_MAX:
        raise FieldError(f"the document has {size_bytes} bytes; it must have at most {DOCUMENT_BYTES_MAX}")
    try:
        raw = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise FieldError(f"the document is no YAML: {' '.join(str(error).split())}") from None
    return Fields(raw, "")


def kind_of(fields: Fields) -> str:
    """Which kind of document it is."""
    kind = fields.text("kind")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        advice = f"did you mean {near[0]}?" if near else f"use one of {', '.join(KINDS)}"
        raise FieldError(f"kind ({kind!r}) is unknown; {advice}")
    return kind


def name_of(text: str) -> str:
    """By which a document replaces an older one: its kind, and whose price list it is.

    Raises:
        FieldError: as `read`, or it has no known kind.
    """
    fields = read(text)
    kind = kind_of(fields)
    return f"offers/{identifier(fields, 'operator')}" if kind == "offers" else kind


def cny(fields: Fields, name: str, default: int | None = None) -> int:
    """An amount in CNY as micro-CNY, exactly; `default` is in micro-CNY."""
    if default is not None and not fields.has(name):
        return default
    value = fields.take(name)
    try:
        exact = Decimal(str(value)) * _MICRO
    except InvalidOperation:
        exact = Decimal(-1)
    if isinstance(value, bool) or not exact.is_finite() or not 0 <= exact < 10**18 or exact % 1:
        raise FieldError(
            f"{fields.at(name)} ({value!r}) must be an amount in CNY of at least 0, with at most 6 decimals"
        )
    return int(exact)


def permille(fields: Fields, name: str, default: int | None = None) -> int:
    """A share in percent as permille; `default` is in permille."""
    if default is not None and not fields.has(name):
        return default
    value = Decimal(str(fields.number(name))) * 10
    if value > 1000 or value % 1:
        raise FieldError(
            f"{fields.at(name)} ({value / 10}) must be 0 to 100 percent, with at most one decimal"
        )
    return int(value)


def day(fields: Fields, name: str, default: date | None = None) -> date:
    """A date such as 2026-01-01."""
    value = fields.take(name, default)
    if type(value) is not date:
        raise FieldError(f"{fields.at(name)} ({value!r}) must be a date such as 2026-01-01")
    return value


def texts(fields: Fields, name: str) -> tuple[str, ...]:
    """A list of words; left out: none."""
    value = fields.take(name, [])
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise FieldError(f"{fields.at(name)} ({value!r}) must be a list of words")
    return tuple(value)


def identifier(fields: Fields, name: str, default: str | None = None) -> str:
    """The name of a tenant, an enterprise, an operator, a policy."""
    value = fields.text(name, default)
    if value and not is_name(value):
        raise FieldError(f"{fields.at(name)} ({value!r}) is no valid name; use a-z, 0-9 and -")
    return value


def covers(region: str, jurisdiction: str) -> bool:
    """Whether a region ("CN-GD") contains a jurisdiction ("CN-GD-GZ"); the empty one contains all."""
    return not region or jurisdiction == region or jurisdiction.startswith(f"{region}-")
