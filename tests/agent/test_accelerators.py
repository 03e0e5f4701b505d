"""Accelerators: what real tools have printed, tools that hang or fail, and what a node then offers.

No device was at hand: NVML is a stand-in's, npu-smi's output was recorded (`recorded/SOURCE.md`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mumian.api.v1.resources_pb2 import DeviceShare
from mumian_agent.domain.accelerators import Device, faults_of, model_of, offered, withheld
from mumian_agent.runtime.accelerators import ascend, nvidia
from mumian_agent.runtime.accelerators.inspector import Inspector, is_foreign
from mumian_agent.runtime.process_tree import ALLOCATION_VARIABLE

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> list[Device]:
    """The devices in a recorded output."""
    return ascend.parse((RECORDED / name).read_text())


def test_eight_910b3_are_found_with_their_memory_and_who_computes_on_them() -> None:
    devices = recorded("npu-smi-910b3.txt")
    assert devices == [Device("npu", "910B3", memory_mib=65536, process_ids=(1067991,))] * 8
    [entry] = offered(devices)
    assert (entry.model, entry.count, entry.fp16_gflops) == ("Ascend-910B3", 8, 313_000)


def test_a_310p_has_its_memory_under_another_heading() -> None:
    assert recorded("npu-smi-310p3.txt") == [Device("npu", "310P3", memory_mib=21527)] * 2


def test_a_chip_without_processes_is_free() -> None:
    devices = recorded("npu-smi-910b4.txt")
    assert devices == [Device("npu", "910B4", memory_mib=32768)]
    assert withheld(devices, lambda pid: True) == []


def test_a_chip_that_is_not_ok_is_not_offered_and_says_why() -> None:
    text = (RECORDED / "npu-smi-910b3.txt").read_text()
    devices = ascend.parse(text.replace("| OK            | 89.4", "| Alarm         | 89.4"))
    assert faults_of(devices) == ["npu 2 (910B3) is Alarm by npu-smi"]
    assert withheld(devices, lambda pid: False) == [DeviceShare(device_index=2, milli=1000)]
    assert offered(devices)[0].count == 8  # those after it keep their numbers


def test_what_is_no_table_of_npus_is_refused() -> None:
    with pytest.raises(ascend.NpuSmiError, match="no table of NPUs"):
        ascend.parse("dcmi model initialized failed, because the device is used. ret is -8020")


class Nvml:
    """The part of `pynvml` that is asked, for two cards of which the second has fallen from the bus."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.is_shut_down = False

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_shut_down = True

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        if number == 1:
            raise self.NVMLError("GPU is lost")
        return number

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802
        return b"NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(total=80 * 1024**3)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:  # noqa: N802
        return 650_000

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> Any:  # noqa: N802
        raise self.NVMLError("Not Supported")


def test_a_gpu_that_is_lost_is_counted_and_not_offered() -> None:
    nvml = Nvml()
    devices = nvidia.find_by(nvml)
    assert devices[0] == Device("gpu", "NVIDIA H100 80GB HBM3", 81920, 650_000)
    assert faults_of(devices) == ["gpu 1 (unknown) does not answer: GPU is lost"]
    assert nvml.is_shut_down
    first = offered(devices)[0]
    assert (first.model, first.active_power_mw, first.fp16_gflops) == ("H100", 650_000, 989_400)


@pytest.mark.parametrize(
    ("product", "model", "gflops"),
    [
        ("NVIDIA H100 80GB HBM3", "H100", 989_400),
        ("NVIDIA H100 PCIe", "H100-PCIe", 756_000),
        ("NVIDIA A100-SXM4-80GB", "A100", 312_000),
        ("Tesla T4", "T4", 65_000),
        ("NVIDIA L4", "L4", 121_000),
        ("NVIDIA L40S", "L40S", 362_050),
        ("NVIDIA H100 NVL", "H100-NVL", 835_500),
        ("NVIDIA H200 NVL", "H200-NVL", 835_500),
        ("NVIDIA H200", "H200", 989_400),
        ("NVIDIA H20", "H20", 148_000),
        ("Tesla V100-SXM2-32GB", "V100", 125_000),
        ("Tesla V100-PCIE-16GB", "V100-PCIe", 112_000),
        ("Tesla V100S-PCIE-32GB", "V100S", 130_000),
        ("NVIDIA GeForce RTX 4090", "GeForce-RTX-4090", 0),
        ("310P3", "Ascend-310P3", 70_000),
    ],
)
def test_products_have_the_models_of_the_table(product: str, model: str, gflops: int) -> None:
    found = model_of(product)
    assert (found.name, found.fp16_gflops) == (model, gflops)


def test_devices_keep_their_numbers_when_models_alternate() -> None:
    cards = [
        Device("gpu", "NVIDIA A100-SXM4-80GB"),
        Device("gpu", "Tesla T4"),
        Device("gpu", "NVIDIA A100-SXM4-80GB"),
    ]
    assert [(each.model, each.count) for each in offered(cards)] == [("A100", 1), ("T4", 1), ("A100", 1)]


def python(code: str) -> list[str]:
    """A command that runs it."""
    return [sys.executable, "-c", code]


def test_a_library_that_hangs_is_given_up_and_its_devices_are_faulty() -> None:
    known = '[{"kind": "gpu", "product": "NVIDIA H100 80GB HBM3", "memory_mib": 81920}]'
    code = [f"print({known!r})"]
    inspector = Inspector(["nvidia"], lambda source: python(code[0]), within_s=30)
    assert inspector.devices() == [Device("gpu", "NVIDIA H100 80GB HBM3", 81920)]
    code[0], inspector.within_s = "import time; time.sleep(600)", 0.2
    [lost] = inspector.devices()
    assert lost.fault == "is unknown: nvidia has not answered within 0.2 s"
    assert withheld([lost], lambda pid: False) == [DeviceShare(device_index=0, milli=1000)]
    code[0], inspector.within_s = f"print({known!r})", 30
    assert inspector.devices()[0].fault == ""


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise SystemExit(3)", "nvidia ends with status 3"),
        ("import os; os.kill(os.getpid(), 11)", "nvidia ends with status -11"),
        ("print('no')", "is not understood"),
        ('print(\'[{"kind": "tpu", "product": "x"}]\')', "kind is gpu or npu"),
        ('print(\'{"error": "no driver"}\')', "nvidia: no driver"),
    ],
)
def test_a_tool_that_crashes_or_talks_nonsense_is_told(code: str, told: str) -> None:
    inspector = Inspector(["nvidia"], lambda source: python(code), within_s=30)
    assert inspector.devices() == []
    assert told in inspector.faults["nvidia"]


def test_one_source_that_fails_does_not_hide_another() -> None:
    well = 'print(\'[{"kind": "npu", "product": "910B3"}]\')'
    inspector = Inspector(["nvidia", "ascend"], lambda s: python(well if s == "ascend" else "exit(1)"), 30)
    assert inspector.devices() == [Device("npu", "910B3")]


def test_the_child_prints_what_its_source_finds(tmp_path: Path) -> None:
    """The real child, with a recorded npu-smi on its PATH."""
    tool = tmp_path / "npu-smi"
    tool.write_text(f"#!/bin/sh\ncat {RECORDED / 'npu-smi-910b4.txt'}\n")
    tool.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "mumian_agent.runtime.accelerators.look", "ascend"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        check=True,
    )
    assert b'"product": "910B4"' in done.stdout


def test_a_process_is_foreign_unless_it_is_a_task(tmp_path: Path) -> None:
    task = subprocess.Popen(["sleep", "60"], env={ALLOCATION_VARIABLE: "a.main.0"})
    other = subprocess.Popen(["sleep", "60"], env={})
    try:
        assert not is_foreign(task.pid)
        assert is_foreign(other.pid)
    finally:
        for process in (task, other):
            process.kill()
            process.wait()
    assert is_foreign(other.pid)
