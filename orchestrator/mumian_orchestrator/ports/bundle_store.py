"""Where uploaded folders are kept: not in the store of the jobs, which is for small values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class BundleKey(NamedTuple):
    """A tenant sees its own bundles only, though another may have the same."""

    tenant_id: str
    sha256: str  # 64 hexadecimal digits


@dataclass(frozen=True, slots=True)
class StoredBundle:
    """One that is kept, whole or in part."""

    key: BundleKey
    size_bytes: int
    used_unix_s: float  # when it was last written or wanted
    is_whole: bool


class BundleStore(Protocol):
    """Bundles by key. Every method may raise OSError."""

    async def find(self, key: BundleKey) -> StoredBundle | None:
        """What there is of one; from now on it counts as used."""
        ...

    async def append(self, key: BundleKey, offset_bytes: int, data: bytes) -> int:
        """Add to one that is not whole, if it is exactly so long; how long it is then."""
        ...

    async def finish(self, key: BundleKey) -> bool:
        """It is whole: keep it if its hash is right, otherwise forget it."""
        ...

    async def read(self, key: BundleKey, offset_bytes: int, length_bytes: int) -> bytes | None:
        """A piece of a whole one; None: there is none."""
        ...

    async def all(self) -> Sequence[StoredBundle]:
        """Everything that is kept."""
        ...

    async def forget(self, key: BundleKey) -> None:
        """Keep it no longer, whole or not."""
        ...
