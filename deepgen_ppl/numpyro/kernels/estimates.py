"""What warm-up computes of the steps of all chains: covariances, lost chains, worth of a step."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

_FRESH = 0.25  # effective draws in a step of a chain during warm-up, for the shrinkage
_LOST = 10.0  # nats


# ----------------------------------------------------------------------------------- covariance


def estimate(
    positions: Float[np.ndarray, "step chain D"], dense: bool
) -> tuple[Float[np.ndarray, " D"], np.ndarray]:
    r"""Return mean and root of the covariance pooled over chains, shrunk to its diagonal.

    With correlations \(r_{ij}\) from \(n\) effective draws the share of the diagonal is

    \[ \lambda = \frac{\sum_{i \ne j} (1 - r_{ij}^2)^2 / n}{\sum_{i \ne j} r_{ij}^2}. \]

    Args:
        positions: Steps of the chains.
        dense: Whether the root is a lower triangular matrix, or the diagonal of one.

    References:
        Schäfer and Strimmer: A shrinkage approach to large-scale covariance matrix estimation.
        Statistical Applications in Genetics and Molecular Biology 4(1), 2005.
    """
    flat = positions.reshape(-1, positions.shape[-1])
    mean = flat.mean(0)
    apart = flat - mean
    variance = np.square(apart).mean(0)
    scale = np.sqrt(np.where(variance > 0, variance, 1.0))
    if not dense:
        return mean, scale
    apart = apart / scale
    correlation = apart.T @ apart / len(apart)
    eye = np.eye(len(scale))
    others = 1.0 - eye
    squares = others * np.minimum(correlation**2, 1.0)
    effective = max(_FRESH * len(flat), positions.shape[1])
    noise = np.sum(others * (1.0 - squares) ** 2) / effective
    share = np.clip(noise / max(squares.sum(), 1e-30), 0.0, 1.0)
    shrunk = (1.0 - share) * others * correlation + eye
    try:
        factor = np.linalg.cholesky(shrunk + 1e-5 * eye)
    except np.linalg.LinAlgError:
        factor = eye
    return mean, scale[:, None] * factor


def scales(root: np.ndarray) -> Float[np.ndarray, " D"]:
    """Return the standard deviations that a root of a covariance stands for."""
    return root if root.ndim == 1 else np.sqrt(np.square(root).sum(1))


def lost_chains(
    positions: Float[np.ndarray, "step chain D"], potentials: Float[np.ndarray, "step chain"]
) -> Bool[np.ndarray, " chain"]:
    r"""Tell which chains are where the target has no mass to speak of, or do not move at all.

    The mass around a chain is about \(e^{-F}\) with \(F = \bar U - \sum_d \log s_d\), from its mean
    energy and its own standard deviations. Lost are chains with F more than 10 + D nats above the
    lowest quarter of the chains. A funnel's neck and mouth differ in energy and in volume, and not
    in F.

    Args:
        positions: Steps of the chains.
        potentials: Potential energies there.
    """
    spread = positions.std(0, ddof=1)
    free = potentials.mean(0) - np.log(np.maximum(spread, 1e-30)).sum(-1)
    free = np.where(np.isfinite(free), free, np.inf)
    lowest = np.quantile(free, 0.25, method="lower")
    return ~(free <= lowest + _LOST + positions.shape[-1])


# ----------------------------------------------------------------------------- trajectory length


def efficiency(
    before: Float[np.ndarray, "step chain D"], after: Float[np.ndarray, "step chain D"]
) -> float:
    r"""Return the effective draws that a step is worth, of the standardised y and of y^2.

    With squared jumps \(J = E(y' - y)^2\), the autocorrelation at lag one is \(1 - J / 2\) and

    \[ \mathrm{ESS} \approx \frac{1 - \rho}{1 + \rho} = \frac{J}{4 - J}, \]

    likewise for y^2, whose variance is 2. Trajectories of half a turn move y best and leave y^2
    where it is, so it is the geometric mean of both, averaged over the dimensions.

    Args:
        before: Standardised positions.
        after: The same one step later.

    References:
        Hoffman, Radul, Sountsov: An adaptive-MCMC scheme for setting trajectory lengths in
        Hamiltonian Monte Carlo. AISTATS 2021. https://proceedings.mlr.press/v130/hoffman21a.html
    """
    first = np.square(after - before).mean((0, 1))
    second = np.square(after**2 - before**2).mean((0, 1)) / 2.0
    worth = [np.minimum(jump, 3.9) / (4.0 - np.minimum(jump, 3.9)) for jump in (first, second)]
    return float(np.sqrt(worth[0] * worth[1]).mean())


def van_der_corput(index: Int[Array, ""]) -> Float[Array, ""]:
    """Return the point of van der Corput's sequence in base 2: the digits of i + 1, mirrored.

    Args:
        index: Number of the point, counted from 0.

    Example:
        >>> [float(van_der_corput(jnp.asarray(i))) for i in range(4)]
        [0.5, 0.25, 0.75, 0.125]
    """
    places = jnp.arange(24)
    digits = jnp.bitwise_and(jnp.right_shift(index + 1, places), 1)
    return jnp.sum(digits * 0.5 ** (places + 1.0))
