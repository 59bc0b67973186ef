"""How precisely a network computes, and what this processor makes of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

Precision = Literal["float32", "float16", "bfloat16", "int8"]

CPU_INFO = Path("/proc/cpuinfo")
# AVX-512's dot products, AMX's tiles. Without them bfloat16 would be emulated, slower than float32.
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@cache
def processor_has_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Whether the processor has bfloat16 instructions that OpenVINO uses; False off Linux."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line[:5] == "flags"), [])
    return not _BFLOAT16_FLAGS.isdisjoint(flags)


def computed_in(precision: Precision) -> Precision:
    """What a network of `precision` is computed in here: float32 for bfloat16 without it."""
    if precision == "bfloat16" and not processor_has_bfloat16():
        return "float32"
    return precision
