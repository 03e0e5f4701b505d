"""What every benchmark leaves behind: lines `name value unit`, and the raw results as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results"


class Report:
    """Collects the figures of one run and prints each as it comes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._figures: list[dict[str, object]] = []

    def line(self, name: str, values: float | Sequence[float], unit: str) -> None:
        """Print the median of the values, one a seed, and keep them all."""
        values = [values] if isinstance(values, int | float) else list(values)
        middle = median(values)
        self._figures.append({"name": name, "median": middle, "values": values, "unit": unit})
        text = f"{middle:.0f}" if middle >= 100 else f"{middle:.3g}"
        print(f"{name} {text} {unit}", flush=True)

    def mean_line(self, name: str, values: Sequence[float], unit: str) -> None:
        """The same by the mean, where hundredths matter."""
        mean = fmean(values)
        self._figures.append({"name": name, "mean": mean, "values": list(values), "unit": unit})
        print(f"{name} {mean:.2f} {unit}", flush=True)

    def write(self, raw: object) -> Path:
        """Keep the figures and the raw results, with the machine and the revision, as JSON."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self._name}.json"
        content = {"machine": machine(), "revision": revision(), "figures": self._figures, "raw": raw}
        path.write_text(json.dumps(content, indent=1) + "\n")
        return path


def machine() -> dict[str, object]:
    """Processor, cores, kernel, and the load when asked."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": cpu[0].partition(":")[2].strip() if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load_1m_5m_15m": os.getloadavg(),
    }


def revision() -> str:
    """The commit that is measured, marked when files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
