"""Files of decisions: their names, and their records in order with the chain of hashes checked.

`decisions-<count>.binpb`, and `.gz` behind it once it is full. Each file begins with the whole state, so that
older ones can be thrown away.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from google.protobuf.message import DecodeError
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed
from mumian.storage.v1.decision_pb2 import DecisionRecord, SealedRecord

from mumian_orchestrator.adapters.disk.in_place import put_in_place

if TYPE_CHECKING:
    from io import BytesIO

_PACKED, _UNDER_WAY = ".gz", ".new"


class DecisionFilesError(Exception):
    """What is in the folder is not what was written."""


class Sealed(NamedTuple):
    """A record with its hash."""

    record: DecisionRecord
    hash: bytes


def files_in(folder: Path) -> list[Path]:
    """The files that there are, oldest first; of one that was being packed, one of the two."""
    paths = sorted(path for path in folder.glob("decisions-*.binpb*") if path.suffix != _UNDER_WAY)
    return list({path.name.removesuffix(_PACKED): path for path in paths}.values())


def next_path(folder: Path) -> Path:
    """A new file behind those that there are."""
    last = [path.name.partition(".")[0].rpartition("-")[2] for path in files_in(folder)][-1:]
    return folder / f"decisions-{int(last[0]) + 1 if last else 1:09}.binpb"


def seal(record: DecisionRecord, hash_before: bytes, *, is_first: bool) -> SealedRecord:
    """Chain a record to the one before it."""
    data = record.SerializeToString()
    digest = hashlib.sha256(hash_before + data).digest()
    return SealedRecord(record=data, hash=digest, hash_before=hash_before if is_first else b"")


def write(sealed: SealedRecord, file: IO[bytes]) -> None:
    """Add a record to a file."""
    serialize_length_prefixed(sealed, cast("BytesIO", file))  # any binary file will do


def pack(path: Path) -> None:
    """Make a full file small."""
    packed = path.with_name(path.name + _PACKED)
    scratch = packed.with_name(packed.name + _UNDER_WAY)
    with path.open("rb") as plain, gzip.open(scratch, "wb", compresslevel=1) as file:
        while piece := plain.read(1 << 20):
            file.write(piece)
    put_in_place(scratch, packed)
    path.unlink()


def records_of(path: Path) -> Iterator[SealedRecord]:
    """A file's records. One at its end that was not written out is left out."""
    with gzip.open(path, "rb") if path.suffix == _PACKED else path.open("rb") as file:
        while True:
            try:
                sealed = parse_length_prefixed(SealedRecord, cast("BytesIO", file))
            except (DecodeError, ValueError, EOFError):
                return  # the coordinator was killed while it wrote this one; the chain shows any other loss
            if sealed is None:
                return
            yield sealed


def content_of(path: Path) -> Iterator[DecisionRecord]:
    """A file's records without their hashes."""
    return (DecisionRecord.FromString(sealed.record) for sealed in records_of(path))


def last_in(folder: Path) -> Sealed | None:
    """The last record, found without reading the files before; None: there is none."""
    for path in reversed(files_in(folder)):
        for sealed in deque(records_of(path), maxlen=1):
            return Sealed(DecisionRecord.FromString(sealed.record), sealed.hash)
    return None


def records_in(folder: Path) -> Iterator[Sealed]:
    """All records of a folder, oldest first.

    Raises:
        DecisionFilesError: one was changed, or is missing.
    """
    before: Sealed | None = None
    for path in files_in(folder):
        is_first = True
        for sealed in records_of(path):
            found = Sealed(DecisionRecord.FromString(sealed.record), sealed.hash)
            hash_before = before.hash if before else sealed.hash_before
            is_whole = hashlib.sha256(hash_before + sealed.record).digest() == sealed.hash
            # Between files the chain alone counts: what could not be written has a number too.
            is_next = is_first or before is None or found.record.number == before.record.number + 1
            if not (is_whole and is_next):
                last = before.record.number if before else 0
                raise DecisionFilesError(
                    f"{path}: what is behind record {last} was changed, or some is missing"
                )
            before, is_first = found, False
            yield found
