"""Products of zeros and ones in half precision: what they cost in accuracy, when they pay."""

from __future__ import annotations

import functools
import os
from pathlib import Path

SWITCH = "DEEPGEN_PPL_HALVES"
"""Environment variable: "0" never takes these products, "1" at any size and on any processor."""

ERROR = 2.0**-16
"""Largest error of a number that is the sum of two rounded halves, relative to itself."""

_FLAG = "amx_bf16"
_ROWS, _ENTRIES = 32, 1 << 15  # below these, splitting costs more than it saves


def wanted(rows: int, entries: int) -> bool:
    r"""Tell whether a product of zeros and ones with a real matrix is taken in two halves.

    Zeros and ones are exact in bfloat16, which has the exponents of single precision and 8 bits of
    its fraction. A weight is the sum of its rounding to bfloat16 and of the rounding of what is
    left, but for \(2^{-16}\) of itself at the most; products with both are summed in single
    precision. Processors with units for matrices of bfloat16 (the flag `amx_bf16` of Linux) take
    the two in less time than one product in single precision.

    It depends on the processor, the sizes and the environment variable `DEEPGEN_PPL_HALVES` alone,
    so that two runs on a machine take the same way.

    Args:
        rows: rows of zeros and ones.
        entries: entries of the matrix.

    Example:
        >>> wanted(1, 10)
        False
    """
    if switch() in ("0", "1"):
        return switch() == "1"
    return rows >= _ROWS and entries >= _ENTRIES and has_half_units()


def switch() -> str:
    """Return what the environment asks for, on which compiled code depends.

    Example:
        >>> isinstance(switch(), str)
        True
    """
    return os.environ.get(SWITCH, "")


@functools.cache
def has_half_units() -> bool:
    """Tell whether the processor multiplies matrices of bfloat16 by units of their own.

    Example:
        >>> has_half_units() in (True, False)
        True
    """
    try:
        return _FLAG in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
