"""What an accelerator can do: dense FP16 (or BF16) tensor TFLOPS by the makers' data sheets, not sparse.

The city's registry may name others, and correct these: `accelerators` in docs/money.md.
"""

from __future__ import annotations

from collections.abc import Mapping

TFLOPS_FP16: Mapping[str, int] = {
    "A10": 125,
    "A100": 312,
    "A30": 165,
    "A800": 312,
    "Ascend-910": 256,
    "Ascend-910B": 320,
    "H100": 989,
    "H20": 148,
    "H200": 989,
    "H800": 989,
    "L4": 121,
    "L40S": 362,
    "MI250X": 383,
    "MI300X": 1307,
    "P100": 19,
    "T4": 65,
    "V100": 125,
}
