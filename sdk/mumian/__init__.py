"""Mumian for tenants: submit jobs to a city's compute as if it were one machine.

import mumian

with mumian.Client() as client:
    job = client.submit(mumian.job("hello", mumian.task_group(command=["echo", "hello"])))
    print(client.wait(job.id).state)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mumian.aio import AsyncClient
    from mumian.builder import compute_time, deferral, health, job, latency, task_group, update_policy
    from mumian.client import Client
    from mumian.errors import FieldViolation, MumianError
    from mumian.spec import LoadedSpec, load_spec, load_specs

__all__ = [
    "AsyncClient",
    "Client",
    "FieldViolation",
    "LoadedSpec",
    "MumianError",
    "compute_time",
    "deferral",
    "health",
    "job",
    "latency",
    "load_spec",
    "load_specs",
    "on_disconnect",
    "task_group",
    "update_policy",
]

# Imported at first use: gRPC costs a tenth of a second, YAML needs the extra `cli`.
_HOMES = {
    "AsyncClient": "mumian.aio",
    "Client": "mumian.client",
    "FieldViolation": "mumian.errors",
    "LoadedSpec": "mumian.spec",
    "MumianError": "mumian.errors",
    "compute_time": "mumian.builder",
    "deferral": "mumian.builder",
    "health": "mumian.builder",
    "job": "mumian.builder",
    "latency": "mumian.builder",
    "load_spec": "mumian.spec",
    "load_specs": "mumian.spec",
    "on_disconnect": "mumian.builder",
    "task_group": "mumian.builder",
    "update_policy": "mumian.builder",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
