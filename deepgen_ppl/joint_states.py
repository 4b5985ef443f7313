"""Joint states of several discrete variables, in one order on both wings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def grid(sizes: Sequence[int]) -> np.ndarray:
    """Return the numbers of the states of each variable in every joint state, the last one fastest.

    Args:
        sizes: number of states of each variable.

    Returns:
        Shape (product of the sizes, variables).

    Example:
        >>> grid([2, 3]).tolist()
        [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    """
    return np.indices(tuple(sizes)).reshape(len(sizes), -1).T


def number(sizes: Sequence[int]) -> int:
    """Return the number of joint states, without listing them.

    Example:
        >>> number([2] * 100) == 2**100
        True
    """
    total = 1
    for size in sizes:
        total *= int(size)
    return total
