"""What the tables of a job spec are made of: each reader takes a value and fills a message of the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mumian.spec.document import Value

# What other systems call a key, for the advice.
_ALIASES = {
    "gpu": "accelerators",
    "gpus": "accelerators",
    "npu": "accelerators",
    "npus": "accelerators",
    "replicas": "count",
    "tasks": "count",
    "instances": "count",
    "groups": "task_groups",
    "cmd": "command",
    "args": "command",
    "run": "command",
    "script": "command",
    "entrypoint": "entry_point",
    "workdir": "working_directory",
    "cwd": "working_directory",
    "timeout": "time_limit",
    "cpus": "cpu",
    "cores": "cpu",
    "mem": "memory",
    "ram": "memory",
    "slo": "latency",
    "type": "kind",
    "zone": "from",
    "zones": "from",
    "percentile": "share",
    "soft": "soft_cny_per_ms_hour",
    "max": "budget",
    "regions": "jurisdictions",
    "pue": "pue_max",
    "rent": "rent_max",
    "price": "rent_max",
    "price_max": "rent_max",
    "spreads": "spread",
    "topology_spread": "spread",
    "anti_affinity": "apart_from",
    "affinity": "near",
    "colocate": "together",
    "same": "together",
    "topology": "together",
    "group_latency": "near",
    "bandwidth": "traffic",
    "zone_traffic": "traffic",
    "deadline": "finish_within",
    "duration": "run_time",
    "defer": "deferral",
    "disconnect": "on_disconnect",
    "stop_on_client_after": "stop_after",
    "check": "health",
    "health_check": "health",
    "healthcheck": "health",
    "readiness": "health",
    "liveness": "health",
    "path": "http",
    "retries": "max_restarts",
    "backoff": "restart_delay",
    "start_period": "grace",
    "container": "image",
    "docker": "image",
    "rolling_update": "update",
    "strategy": "update",
    "max_surge": "max_parallel",
    "min_healthy_time": "well_for",
    "files": "upload",
    "bundle": "upload",
    "context": "upload",
    "artifacts": "outputs",
    "output": "outputs",
    "results": "outputs",
    "initial_delay": "grace",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A message to fill, and its field path in the spec."""

    message: Any
    path: str

    def note(self, field: str, value: Value) -> None:
        """Remember where a field came from."""
        path = f"{self.path}.{field}" if self.path and field else self.path or field
        value.document.origins[path] = (value.line, value.key)

    def inner(self, field: str) -> Target:
        """The message in a field."""
        return Target(getattr(self.message, field), f"{self.path}.{field}" if self.path else field)


Reader = Callable[[Target, Value], None]


def scalar(field: str, parse: Callable[[str], object]) -> Reader:
    def read(target: Target, value: Value) -> None:
        target.note(field, value)
        parsed = value.parsed(parse)
        if parsed is not None:
            setattr(target.message, field, parsed)

    return read


def truth(field: str) -> Reader:
    def read(target: Target, value: Value) -> None:
        target.note(field, value)
        word = value.choice(("true", "false"))
        if word is not None:
            setattr(target.message, field, word == "true")

    return read


def text(field: str) -> Reader:
    def read(target: Target, value: Value) -> None:
        target.note(field, value)
        text = value.text()
        if text is not None:
            setattr(target.message, field, text)

    return read


def texts(field: str) -> Reader:
    def read(target: Target, value: Value) -> None:
        target.note(field, value)
        getattr(target.message, field).extend(value.texts())

    return read


def words_by_key(field: str, example: str) -> Reader:
    def read(target: Target, value: Value) -> None:
        target.note(field, value)
        for name, item in value.entries(example):
            word = item.word()
            if word is not None:
                getattr(target.message, field)[name] = word

    return read


def scalars_by_key(field: str, parse: Callable[[str], object], example: str) -> Reader:
    def read(target: Target, value: Value) -> None:
        target.note(field, value)
        for name, item in value.entries(example):
            parsed = item.parsed(parse)
            if parsed is not None:
                getattr(target.message, field)[name] = parsed

    return read


def within(field: str, reader: Reader) -> Reader:
    return lambda target, value: reader(target.inner(field), value)


def into(target: Target, reader: Reader) -> Reader:
    """The reader, filling this target whatever it is called with."""
    return lambda _, value: reader(target, value)


def fill(target: Target, value: Value, readers: Mapping[str, Reader], example: str) -> set[str]:
    """Read a mapping by its table; the keys that it has."""
    given = set()
    for key, item in value.fields(readers, example, _ALIASES):
        given.add(key)
        readers[key](target, item)
    return given
