"""Values of options that are quantities with a unit."""

from __future__ import annotations

from collections.abc import Callable

import click

from mumian import quantities


class Figure(click.ParamType[int]):
    """A quantity with its unit, refused as a wrong value of an option is."""

    def __init__(self, name: str, parse: Callable[[str], int]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The quantity in its smallest unit."""
        try:
            return value if isinstance(value, int) else self._parse(str(value))
        except ValueError as error:
            self.fail(f"({value}) {error}", param, ctx)


def _limit_microcny(text: str) -> int:
    return 0 if text.strip() in ("0", "0.0", "0.00") else quantities.money_microcny(text)


AMOUNT = Figure("CNY", quantities.money_microcny)
LIMIT = Figure("CNY", _limit_microcny)  # may be nothing at all
