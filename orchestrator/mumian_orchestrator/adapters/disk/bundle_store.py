"""Bundles in a folder: `<tenant>/<sha256>`, and `<sha256>.part` until it is whole.

Several coordinators share it by a network file system; with one, any local folder will do.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from mumian_orchestrator.adapters.disk.in_place import put_in_place
from mumian_orchestrator.ports.bundle_store import BundleKey, StoredBundle

_PART = ".part"
_PIECE_BYTES = 1024 * 1024


class DiskBundleStore:
    """Blocking calls go to threads; one at a time changes something."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changing = asyncio.Lock()

    async def find(self, key: BundleKey) -> StoredBundle | None:
        """What there is of one; from now on it counts as used."""
        return await asyncio.to_thread(self._find, key)

    async def append(self, key: BundleKey, offset_bytes: int, data: bytes) -> int:
        """Add to one that is not whole, if it is exactly so long; how long it is then."""
        async with self._changing:
            return await asyncio.to_thread(self._append, key, offset_bytes, data)

    async def finish(self, key: BundleKey) -> bool:
        """It is whole: keep it if its hash is right, otherwise forget it."""
        async with self._changing:
            return await asyncio.to_thread(self._finish, key)

    async def read(self, key: BundleKey, offset_bytes: int, length_bytes: int) -> bytes | None:
        """A piece of a whole one; None: there is none."""
        return await asyncio.to_thread(self._read, key, offset_bytes, length_bytes)

    async def all(self) -> Sequence[StoredBundle]:
        """Everything that is kept."""
        return await asyncio.to_thread(self._all)

    async def forget(self, key: BundleKey) -> None:
        """Keep it no longer, whole or not."""
        async with self._changing:
            for path in (self._whole(key), self._part(key)):
                path.unlink(missing_ok=True)

    def _whole(self, key: BundleKey) -> Path:
        return self._folder / key.tenant_id / key.sha256

    def _part(self, key: BundleKey) -> Path:
        return self._folder / key.tenant_id / f"{key.sha256}{_PART}"

    def _find(self, key: BundleKey) -> StoredBundle | None:
        for path, is_whole in ((self._whole(key), True), (self._part(key), False)):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)
                status = path.stat()
                return StoredBundle(key, status.st_size, status.st_mtime, is_whole)
        return None

    def _append(self, key: BundleKey, offset_bytes: int, data: bytes) -> int:
        part = self._part(key)
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            if file.tell() == offset_bytes:
                file.write(data)
            return file.tell()

    def _finish(self, key: BundleKey) -> bool:
        part, digest = self._part(key), hashlib.sha256()
        if not part.exists():
            return self._whole(key).exists()  # another upload of the same was quicker
        with part.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
        if digest.hexdigest() != key.sha256:
            part.unlink()
            return False
        put_in_place(part, self._whole(key))
        return True

    def _read(self, key: BundleKey, offset_bytes: int, length_bytes: int) -> bytes | None:
        try:
            with self._whole(key).open("rb") as file:
                file.seek(offset_bytes)
                return file.read(length_bytes)
        except FileNotFoundError:
            return None

    def _all(self) -> list[StoredBundle]:
        found = []
        for path in self._folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                key = BundleKey(path.parent.name, path.name.removesuffix(_PART))
                found.append(StoredBundle(key, status.st_size, status.st_mtime, path.suffix != _PART))
        return found
