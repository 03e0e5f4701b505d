"""Square matrices of measured round-trip times, as NetLatency-Data publishes them."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path


class MatrixFileError(Exception):
    """The file cannot be read as a matrix of round-trip times."""


def read_matrix(file: Path, unit_us: int) -> list[list[int]]:
    """The round-trip times in microseconds, row by row; 0 where nothing was measured.

    Tab-separated, gzipped if the name ends in .gz; `unit_us` is the unit of the numbers in the file.

    Raises:
        MatrixFileError: it cannot be read, is not square, has fewer than three nodes, or has what is no time.
    """
    try:
        raw = file.read_bytes()
        text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode("ascii")
    except OSError as error:
        raise MatrixFileError(f"{file}: {error.strerror or error}") from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise MatrixFileError(f"{file} is damaged: {error}") from error
    rows = [
        [_microseconds(file, number, cell, unit_us) for cell in line.rstrip("\t").split("\t")]
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
    if len(rows) < 3:
        raise MatrixFileError(
            f"{file} has {len(rows)} nodes; there is nothing to estimate among fewer than 3"
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows):
            raise MatrixFileError(
                f"{file}, row {number}: {len(row)} numbers in a matrix of {len(rows)} nodes"
            )
    return rows


def _microseconds(file: Path, line: int, cell: str, unit_us: int) -> int:
    try:
        rtt_us = round(float(cell) * unit_us)
    except (ValueError, OverflowError):
        rtt_us = -1
    if rtt_us < 0:
        raise MatrixFileError(
            f"{file}, line {line}: {cell.strip()!r} is no round-trip time; give a number from 0"
        )
    return rtt_us
