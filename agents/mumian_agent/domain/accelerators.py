"""Accelerator devices as their vendors' tools tell of them, and what a node offers of them."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mumian.api.v1.resources_pb2 import Accelerator, DeviceShare

_TABLE = Path(__file__).with_name("accelerator_models.toml")


@dataclass(frozen=True, slots=True)
class Device:
    """One device. The order of a node's devices is the vendor's own numbering."""

    kind: str  # "gpu", "npu"
    product: str  # as the vendor's tool spells it
    memory_mib: int = 0  # 0: not told
    power_limit_mw: int = 0  # 0: not told
    fault: str = ""  # why nothing may run there, as in "gpu 0 (H100) ..."; empty: it is well
    process_ids: tuple[int, ...] = ()  # of whoever computes there

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Device:
        """From what another process has written.

        Raises:
            ValueError: it is no device.
        """
        try:
            device = cls(**{**raw, "process_ids": tuple(raw.get("process_ids", ()))})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{raw!r} is no device: {error}") from None
        numbers = (device.memory_mib, device.power_limit_mw, *device.process_ids)
        if device.kind not in ("gpu", "npu") or not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise ValueError(
                f"{raw!r} is no device; kind is gpu or npu, all figures are whole numbers from 0"
            )
        return device


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of a model beside what its device tells."""

    name: str  # as jobs spell it
    fp16_gflops: int  # dense, one device; 0: not published
    power_mw: int  # under full load; 0: not published


def model_of(product: str) -> Model:
    """The model of a product by the table; of an unknown one a name that jobs can spell, and no figures."""
    for pattern, model in _models():
        if pattern.fullmatch(product.strip()):
            return model
    bare = re.sub(r"(?i)^(nvidia|tesla|huawei)\s+", "", product.strip())
    return Model(re.sub(r"[^A-Za-z0-9.-]+", "-", bare).strip("-") or "unknown", 0, 0)


def offered(devices: Iterable[Device]) -> list[Accelerator]:
    """What the node has to offer, in the order of the devices, which number them.

    Devices that follow one another and are of one model make one entry. A device that is withheld stays in
    it, so that those after it keep their numbers.
    """
    entries: list[Accelerator] = []
    for device in devices:
        entry = _entry(device)
        last = entries[-1] if entries else None
        if last is not None and _same(last, entry):
            last.count += 1
        else:
            entries.append(entry)
    return entries


def withheld(devices: Sequence[Device], is_foreign: Callable[[int], bool]) -> list[DeviceShare]:
    """The devices that are not offered: faulty ones, and those that others compute on.

    Args:
        is_foreign: whether a process of that id is nobody's task.
    """
    return [
        DeviceShare(device_index=number, milli=1000)
        for number, device in enumerate(devices)
        if device.fault or any(map(is_foreign, device.process_ids))
    ]


def faults_of(devices: Sequence[Device]) -> list[str]:
    """One sentence for each device on which nothing may run."""
    return [
        f"{device.kind} {number} ({device.product}) {device.fault}"
        for number, device in enumerate(devices)
        if device.fault
    ]


def _entry(device: Device) -> Accelerator:
    model = model_of(device.product)
    return Accelerator(
        kind=device.kind,
        model=model.name,
        count=1,
        active_power_mw=device.power_limit_mw or model.power_mw,
        memory_mib=device.memory_mib,
        fp16_gflops=model.fp16_gflops,
    )


def _same(one: Accelerator, other: Accelerator) -> bool:
    copy = Accelerator()
    copy.CopyFrom(one)
    copy.count = other.count
    return copy == other


@functools.cache
def _models() -> list[tuple[re.Pattern[str], Model]]:
    with _TABLE.open("rb") as file:
        table = tomllib.load(file)
    return [
        (
            re.compile(entry["product"], re.IGNORECASE),
            Model(entry["model"], round(entry["fp16_tflops"] * 1000), round(entry["power_w"] * 1000)),
        )
        for entry in table["model"]
    ]
