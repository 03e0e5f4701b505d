"""Pages of a sorted list, told apart by the key of the last entry seen."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeVar

from mumian.api.v1 import error_pb2

from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError

PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX = 50, 500

Item = TypeVar("Item")


def page(
    items: Sequence[Item], key: Callable[[Item], str], page_size: int, page_token: str
) -> tuple[Sequence[Item], str]:
    """One page of items, and the token of the next ("" at the end).

    An item that comes or goes between two calls moves no other from page to page.

    Args:
        items: in order of `key`, ascending.

    Raises:
        RequestRefusedError: INVALID_PAGE_TOKEN.
    """
    size, after = size_of(page_size), key_of(page_token)
    start = bisect_right(items, after, key=key)
    shown, more = items[start : start + size], len(items) > start + size
    return shown, token_of(key(shown[-1])) if more else ""


def size_of(page_size: int) -> int:
    """How many items a page has that is to have so many."""
    return min(page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def token_of(key: str) -> str:
    """The token of the page behind the item with this key."""
    return base64.urlsafe_b64encode(key.encode()).decode()


def key_of(token: str) -> str:
    """The key behind which a token's page begins.

    Raises:
        RequestRefusedError: INVALID_PAGE_TOKEN.
    """
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        reason = error_pb2.ERROR_REASON_INVALID_PAGE_TOKEN
        fault = FieldFault("page_token", f"({token!r}) was not given by this list; start without one")
        raise RequestRefusedError(reason, f"{fault.field} {fault.description}", [fault]) from None
