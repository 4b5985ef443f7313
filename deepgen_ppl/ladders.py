"""Ladders of inverse temperatures between a reference and a target, whose neighbours swap."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

_POWER = 3.0  # of the first ladder, whose inverse temperatures crowd at the reference


def first_betas(num_temperatures: int, dtype: Any = float) -> Float[np.ndarray, " T"]:
    """Return the inverse temperatures before anything is known, crowded at the reference.

    Args:
        num_temperatures: Number of temperatures.
        dtype: Type of the numbers.

    Example:
        >>> first_betas(3)
        array([0.   , 0.125, 1.   ])
    """
    kind = np.dtype(dtype)
    return np.linspace(0.0, 1.0, num_temperatures).astype(kind) ** kind.type(_POWER)


def equalised(
    betas: Float[Any, " T"], rejections: Float[Any, " pair"], numpy: Any = np
) -> Float[Any, " T"]:
    r"""Return a ladder on which all neighbours reject their swaps equally often.

    The rejections add up to the communication barrier \(\Lambda(\beta)\), on which the new inverse
    temperatures are spaced evenly.

    Args:
        betas: Inverse temperatures, ascending.
        rejections: Mean rejection of each pair of neighbours.
        numpy: The library whose arrays these are, with NumPy's functions.

    References:
        Syed, Bouchard-Côté, Deligiannidis, Doucet 2022, algorithm 2.
        https://arxiv.org/abs/1905.02939

    Example:
        >>> equalised(np.array([0.0, 0.5, 1.0]), np.array([0.6, 0.2]))
        array([0.        , 0.33333333, 1.        ])
    """
    barrier = numpy.cumsum(numpy.maximum(rejections, 1e-3))
    barrier = numpy.concatenate([numpy.zeros_like(barrier[:1]), barrier])
    return numpy.interp(numpy.linspace(0.0, barrier[-1], len(betas)), barrier, betas)
