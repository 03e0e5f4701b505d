"""NVIDIA devices by NVML, the driver's own library (`pip install nvidia-ml-py`)."""

from __future__ import annotations

import ctypes.util
from typing import Any

from mumian_agent.domain.accelerators import Device

_MIB = 1024 * 1024


def is_here() -> bool:
    """Whether the driver's library is installed."""
    return ctypes.util.find_library("nvidia-ml") is not None


def find() -> list[Device]:
    """This machine's."""
    import pynvml

    return find_by(pynvml)


def find_by(nvml: Any) -> list[Device]:
    """The devices in NVML's order, which is that of their PCI addresses; `nvml` is the module `pynvml`."""
    nvml.nvmlInit()
    try:
        return [_device(nvml, number) for number in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()


def _device(nvml: Any, number: int) -> Device:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        product = _text(nvml.nvmlDeviceGetName(handle))
        memory_mib = nvml.nvmlDeviceGetMemoryInfo(handle).total // _MIB
    except nvml.NVMLError as error:
        # As after a fall from the bus (Xid 79): it is counted, and does not answer.
        return Device(kind="gpu", product="unknown", fault=f"does not answer: {error}")
    return Device(
        kind="gpu",
        product=product,
        memory_mib=memory_mib,
        power_limit_mw=_or_none(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle) or 0,
        process_ids=tuple(
            process.pid for process in _or_none(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
        ),
    )


def _or_none(nvml: Any, ask: Any, handle: Any) -> Any:
    """What some devices do not tell."""
    try:
        return ask(handle)
    except nvml.NVMLError:
        return None


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
