"""Parallel tempering: chains on a ladder from the prior to the posterior that swap their places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from deepgen_ppl import checks


@dataclass(frozen=True)
class ParallelTempering:
    r"""Chains at several temperatures, the hottest at the prior, that propose to swap places.

    \[ U_\beta(z) = -(1 - \beta) \log q(z) - \beta \log p(x, z), \qquad
       0 = \beta_0 < \dots < \beta_{T-1} = 1, \]

    with q the prior. After each step neighbours swap with probability
    \(\min(1, e^{(\beta_{t+1} - \beta_t)(\ell_t - \ell_{t+1})})\), \(\ell = \log p(x, z) - \log
    q(z)\), even and odd pairs in turn. The prior is drawn from exactly, so that what comes down the
    ladder may come from any mode. During warm-up the ladder is moved until all pairs reject equally
    often. Only draws of the posterior are kept.

    Args:
        kernel: The kernel that moves the chains: `"chees"`, `"mala"`, `"rwm"`, or `"gibbs"`, which
            draws the discrete latents too, or its options.
        num_temperatures: Number T of temperatures.

    Raises:
        ValueError: Fewer than two temperatures.

    Cost:
        T times that of the kernel, and one more gradient a step.

    References:
        Syed, Bouchard-Côté, Deligiannidis, Doucet: Non-reversible parallel tempering: a scalable
        highly parallel MCMC scheme. JRSS B 84(2), 2022. https://arxiv.org/abs/1905.02939

        Swendsen and Wang: Replica Monte Carlo simulation of spin glasses. Physical Review Letters
        57, 1986.

    Example:
        >>> ParallelTempering("mala", num_temperatures=4).num_temperatures
        4
    """

    kernel: Any = "chees"
    num_temperatures: int = 8

    def __post_init__(self) -> None:
        checks.check_positive(num_temperatures=self.num_temperatures)
        if self.num_temperatures < 2:
            raise ValueError(
                f"num_temperatures must be at least 2, got {self.num_temperatures}: one is the "
                "prior's and one the posterior's."
            )


def equalised(
    betas: Float[np.ndarray, " T"], rejections: Float[np.ndarray, " pair"]
) -> Float[np.ndarray, " T"]:
    r"""Return a ladder on which all neighbours reject their swaps equally often.

    The rejections add up to the communication barrier \(\Lambda(\beta)\), on which the new inverse
    temperatures are spaced evenly.

    Args:
        betas: Inverse temperatures, ascending.
        rejections: Mean rejection of each pair of neighbours.

    References:
        Syed, Bouchard-Côté, Deligiannidis, Doucet 2022, algorithm 2.
        https://arxiv.org/abs/1905.02939

    Example:
        >>> equalised(np.array([0.0, 0.5, 1.0]), np.array([0.6, 0.2]))
        array([0.        , 0.33333333, 1.        ])
    """
    barrier = np.concatenate([[0.0], np.cumsum(np.maximum(rejections, 1e-3))])
    return np.interp(np.linspace(0.0, barrier[-1], len(betas)), barrier, betas)
