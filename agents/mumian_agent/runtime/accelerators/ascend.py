"""Ascend devices by `npu-smi info`, the tool of Huawei's driver. Its output is a table for people.

Each NPU has one line with its name and health, then one line for each of its chips with the bus address and
the memory; a second table lists who computes where. Columns differ by model: a 910B has its memory under
HBM-Usage, a 310P under Memory-Usage; where a chip's number in the whole machine is told (`Device` or
`Phy-ID`) it stands behind its number on the NPU. A chip is a device: 910C and 310P cards have several.
"""

from __future__ import annotations

import re
import shutil
import subprocess

from mumian_agent.domain.accelerators import Device

TOOL = "npu-smi"
_NPU = re.compile(r"\|\s*(\d+)\s+([A-Za-z0-9-]+)\s*\|\s*(\w+)\s*\|")
_CHIP = re.compile(r"\|\s*(\d+)(?:\s+\d+)?\s*\|\s*(?:[0-9A-Fa-f]{4}:[0-9A-Fa-f:.]+|NA)\s*\|(.*)\|")
_USED_OF_ALL = re.compile(r"(\d+)\s*/\s*(\d+)")
_PROCESS = re.compile(r"\|\s*(\d+)(?:\s+(\d+))?\s*\|\s*(\d+)\s*\|\s*\S")


class NpuSmiError(Exception):
    """The tool fails, or says what is not understood."""


def is_here() -> bool:
    """Whether the tool is installed."""
    return shutil.which(TOOL) is not None


def find() -> list[Device]:
    """The chips in order of their NPUs.

    Raises:
        NpuSmiError: the tool fails.
    """
    done = subprocess.run([TOOL, "info"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NpuSmiError(f"`{TOOL} info` fails: {(done.stderr or done.stdout).strip()[:200]}")
    return parse(done.stdout)


def parse(output: str) -> list[Device]:
    """The devices in what `npu-smi info` has printed.

    Raises:
        NpuSmiError: it is no such output.
    """
    if "NPU" not in output or "Health" not in output:
        raise NpuSmiError(f"`{TOOL} info` prints no table of NPUs: {output.strip()[:200]!r}")
    table, _, processes = output.partition("Process id")
    pids = _process_ids(processes)
    devices: list[Device] = []
    npu: re.Match[str] | None = None
    for line in table.splitlines():
        chip = _CHIP.match(line)
        if chip and npu:
            devices.append(_device(npu, chip, pids))
        elif found := _NPU.match(line):
            npu = found
    return devices


def _device(npu: re.Match[str], chip: re.Match[str], pids: dict[tuple[str, str], list[int]]) -> Device:
    number, product, health = npu.groups()
    # The last pair: HBM where there is a column for it. A pair of zeros is a memory that it does not have.
    sizes_mib = [int(all_mib) for _, all_mib in _USED_OF_ALL.findall(chip.group(2))]
    return Device(
        kind="npu",
        product=product,
        memory_mib=next((size for size in reversed(sizes_mib) if size), 0),
        fault="" if health == "OK" else f"is {health} by {TOOL}",
        process_ids=tuple(pids.get((number, chip.group(1)), ())),
    )


def _process_ids(table: str) -> dict[tuple[str, str], list[int]]:
    """The processes by NPU and chip; a chip that is not told is 0."""
    found: dict[tuple[str, str], list[int]] = {}
    for line in table.splitlines():
        if process := _PROCESS.match(line):
            npu, chip, pid = process.groups()
            found.setdefault((npu, chip or "0"), []).append(int(pid))
    return found
