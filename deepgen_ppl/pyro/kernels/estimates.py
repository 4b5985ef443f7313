"""What warm-up computes of the steps of all chains: covariances, lost chains, worth of a step."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_FRESH = 0.25  # effective draws in a step of a chain during warm-up, for the shrinkage
_LOST = 10.0  # nats


# ----------------------------------------------------------------------------------- covariance


def estimate(positions: Float[Tensor, "step chain D"], dense: bool) -> tuple[Tensor, Tensor]:
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
    flat = positions.flatten(0, 1)
    mean = flat.mean(0)
    apart = flat - mean
    variance = apart.square().mean(0)
    scale = torch.where(variance > 0, variance, 1.0).sqrt()
    if not dense:
        return mean, scale
    apart = apart / scale
    correlation = apart.T @ apart / len(apart)
    eye = torch.eye(len(scale)).to(scale)
    others = 1.0 - eye
    squares = others * correlation.square().clamp(max=1.0)
    effective = max(_FRESH * len(flat), positions.shape[1])
    noise = (others * (1.0 - squares) ** 2).sum() / effective
    share = (noise / squares.sum().clamp(min=1e-30)).clamp(0.0, 1.0)
    shrunk = (1.0 - share) * others * correlation + eye
    factor, failed = torch.linalg.cholesky_ex(shrunk + 1e-5 * eye)
    sound = (failed == 0) & factor.isfinite().all()
    return mean, scale[:, None] * torch.where(sound, factor, eye)


def scales(root: Float[Tensor, " D"] | Float[Tensor, "D D"]) -> Float[Tensor, " D"]:
    """Return the standard deviations that a root of a covariance stands for."""
    return root if root.dim() == 1 else root.square().sum(1).sqrt()


def lost_chains(
    positions: Float[Tensor, "step chain D"], potentials: Float[Tensor, "step chain"]
) -> Bool[Tensor, " chain"]:
    r"""Tell which chains are where the target has no mass to speak of, or do not move at all.

    The mass around a chain is about \(e^{-F}\) with \(F = \bar U - \sum_d \log s_d\), from its mean
    energy and its own standard deviations. Lost are chains with F more than 10 + D nats above the
    lowest quarter of the chains. A funnel's neck and mouth differ in energy and in volume, and not
    in F.

    Args:
        positions: Steps of the chains.
        potentials: Potential energies there.
    """
    volume = positions.std(0).clamp(min=1e-30).log().sum(-1)
    free = potentials.mean(0) - volume
    free = torch.where(free.isfinite(), free, math.inf)
    return ~(free <= free.quantile(0.25, interpolation="lower") + _LOST + positions.shape[-1])


# ----------------------------------------------------------------------------- trajectory length


def efficiency(
    before: Float[Tensor, "step chain D"], after: Float[Tensor, "step chain D"]
) -> Float[Tensor, ""]:
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
    first = (after - before).square().flatten(0, -2).mean(0)
    second = (after.square() - before.square()).square().flatten(0, -2).mean(0) / 2.0
    worth = [jump.clamp(max=3.9) / (4.0 - jump.clamp(max=3.9)) for jump in (first, second)]
    return (worth[0] * worth[1]).sqrt().mean()


def van_der_corput(index: int) -> float:
    """Return the point of van der Corput's sequence in base 2: the digits of i + 1, mirrored.

    Args:
        index: Number of the point, counted from 0.

    Example:
        >>> [van_der_corput(i) for i in range(4)]
        [0.5, 0.25, 0.75, 0.125]
    """
    point, place, rest = 0.0, 0.5, index + 1
    while rest:
        point, place, rest = point + place * (rest & 1), place / 2, rest >> 1
    return point
