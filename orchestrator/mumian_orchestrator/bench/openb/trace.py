"""Reads node and task lists in the format of Alibaba's openb trace: CSV with a header."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

WHOLE_GPU_MILLI = 1000
# What the engine accepts of one node and one task, and more than any machine has.
LARGEST_VALUE = 10**12
MOST_GPUS = 1024


class TraceFileError(Exception):
    """A file that cannot be used: its name, the line, the column, the value and advice."""


@dataclass(frozen=True)
class TraceNode:
    """One machine; all its GPUs are of one model, which is empty when it has none."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str


@dataclass(frozen=True)
class TraceTask:
    """What one task asks for.

    Args:
        gpu_milli: of all its GPUs together; below 1000 it is a share of one GPU.
        models: the GPU models that it accepts; any when empty.
    """

    cpu_milli: int
    memory_mib: int
    gpu_milli: int
    models: tuple[str, ...] = ()


def read_nodes(path: Path) -> list[TraceNode]:
    """The machines of a file with the columns sn, cpu_milli, memory_mib, gpu, model.

    Raises:
        TraceFileError: the file cannot be read, is not in the format, or has no GPU.
    """
    nodes = []
    lines_by_name: dict[str, int] = {}
    for row in _rows(path, ("sn", "cpu_milli", "memory_mib", "gpu", "model")):
        name = row.text("sn")
        if not name:
            raise row.error("sn", "give each node a name")
        if name in lines_by_name:
            raise row.error("sn", f"line {lines_by_name[name]} has the same name; give each node its own")
        lines_by_name[name] = row.line
        gpus = row.number("gpu", MOST_GPUS)
        nodes.append(
            TraceNode(name, row.number("cpu_milli"), row.number("memory_mib"), gpus, row.text("model"))
        )
    if not any(node.gpus for node in nodes):
        raise TraceFileError(f"{path}, column gpu: no node has a GPU; give a list with GPUs")
    return nodes


def read_tasks(path: Path) -> list[TraceTask]:
    """The tasks of a file with the columns cpu_milli, memory_mib, num_gpu, gpu_milli and, if it has
    one, gpu_spec.

    Raises:
        TraceFileError: the file cannot be read, is not in the format, or asks for no GPU.
    """
    tasks = []
    for row in _rows(path, ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli")):
        count = row.number("num_gpu", MOST_GPUS)
        each = row.number("gpu_milli", WHOLE_GPU_MILLI)
        if (count == 0) != (each == 0):
            raise row.error("gpu_milli", f"num_gpu is {count}; give both above 0, or both 0")
        if count > 1 and each != WHOLE_GPU_MILLI:
            raise row.error("gpu_milli", f"num_gpu is {count}; several GPUs are whole ones, give 1000")
        models = tuple(sorted({model for model in row.text("gpu_spec").split("|") if model}))
        tasks.append(TraceTask(row.number("cpu_milli"), row.number("memory_mib"), count * each, models))
    if not any(task.gpu_milli for task in tasks):
        raise TraceFileError(f"{path}, column num_gpu: no task asks for a GPU; give a list with such tasks")
    return tasks


@dataclass(frozen=True)
class _Row:
    path: Path
    line: int
    fields: Mapping[str, str]

    def text(self, column: str) -> str:
        return self.fields.get(column, "").strip()

    def number(self, column: str, largest: int = LARGEST_VALUE) -> int:
        text = self.text(column)
        if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= largest):
            raise self.error(column, f"give a whole number from 0 to {largest}")
        return int(text)

    def error(self, column: str, advice: str) -> TraceFileError:
        value = self.text(column)
        shown = value if len(value) <= 40 else value[:40] + "..."
        return TraceFileError(f"{self.path}, line {self.line}, column {column}, value {shown!r}: {advice}")


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    """The rows under a header that has these columns, at least one."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from _checked(path, csv.reader(file, strict=True), columns)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TraceFileError(f"{path}: {reason}; give a file that can be read") from error
    except UnicodeDecodeError as error:
        raise TraceFileError(f"{path}: byte {error.start} is not UTF-8; give a CSV file") from error


def _checked(path: Path, reader: Iterator[list[str]], columns: tuple[str, ...]) -> Iterator[_Row]:
    expected = ",".join(columns)
    line = 0
    header: list[str] = []
    rows = 0
    try:
        for fields in reader:
            line = getattr(reader, "line_num", line)
            if not fields:
                continue
            if not header:
                header = [name.strip() for name in fields]
                missing = [column for column in columns if column not in header]
                if missing:
                    shown = ",".join(header)[:80]
                    raise TraceFileError(
                        f"{path}, line {line}, column {missing[0]}: not in the header {shown!r}; "
                        f"give CSV with the columns {expected}"
                    )
                continue
            if len(fields) != len(header):
                raise TraceFileError(
                    f"{path}, line {line}: {len(fields)} values for {len(header)} columns; give one each"
                )
            rows += 1
            yield _Row(path, line, dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise TraceFileError(f"{path}, line {line + 1}: {error}; give a CSV file") from error
    if not rows:
        what = "no rows under the header" if header else "empty"
        raise TraceFileError(f"{path}: {what}; give CSV with the columns {expected} and a row for each")
