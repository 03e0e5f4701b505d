"""`python -m mumian_agent.runtime.entry_point package.module:function` calls the function.

What it returns does not matter; an exception is printed with its traceback and the exit status is 1.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

NOT_FOUND = 127


class EntryPointError(Exception):
    """The entry point names nothing that can be called."""


def resolve(entry_point: str) -> Callable[[], Any]:
    """The function of that name.

    Raises:
        EntryPointError: there is no such module, or no such function in it.
    """
    module_name, colon, function_name = entry_point.partition(":")
    if not colon or not module_name or not function_name:
        raise EntryPointError(
            f"entry_point ({entry_point!r}) must be package.module:function, such as jobs.train:main"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise EntryPointError(
            f"entry_point ({entry_point}): there is no module {error.name} here; install it on the node, "
            "or set working_directory to the folder that holds it"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise EntryPointError(f"entry_point ({entry_point}): {module_name} has no function {function_name}")
    return function  # type: ignore[no-any-return]


def main(arguments: Sequence[str]) -> None:
    """Call the function that the only argument names."""
    try:
        function = resolve(arguments[0])
    except EntryPointError as error:
        print(error, file=sys.stderr)
        raise SystemExit(NOT_FOUND) from None
    function()


if __name__ == "__main__":
    main(sys.argv[1:])
