"""Mixing of many chains: groups that share a starting point, and the gate no ensemble passes by."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

_FEW = 16  # chains below which each has a starting point of its own
_NESTED_LIMIT, _LIMIT = 1.01, 1.05


def superchains(num_chains: int) -> Int[np.ndarray, " chain"] | None:
    """Group chains that are to set out from one point: as many groups as chains in one, or fewer.

    With 16 chains or more the groups are equal in size and at least 4; else there are none.

    Args:
        num_chains: Number of chains.

    Returns:
        The number of the group of each chain.

    References:
        Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari, Gelman: Nested R-hat: assessing the
        convergence of Markov chain Monte Carlo when running many short chains. Bayesian Analysis,
        2024. https://arxiv.org/abs/2110.13017

    Example:
        >>> superchains(16)
        array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3])
    """
    fitting = [n for n in range(4, int(num_chains**0.5) + 1) if num_chains % n == 0]
    if num_chains < _FEW or not fitting:
        return None
    return np.repeat(np.arange(fitting[-1]), num_chains // fitting[-1])


def ensemble_rhat(
    positions: Float[np.ndarray, "chain draw D"],
    groups: Int[np.ndarray, " chain"] | None = None,
) -> Float[np.ndarray, " D"]:
    r"""Return the R-hat of each unconstrained coordinate, or of its distance to its median.

    Nested where chains are grouped, split where not:

    \[ \sqrt{1 + B / W}, \]

    B the variance of the groups' means and W the variance within groups, of chains and between
    them. Whichever of the coordinate and its distance has the larger one counts.

    Args:
        positions: Draws.
        groups: Number of the group of each chain.

    Cost:
        A few passes over the draws, which are not ranked; `diagnose()` ranks them.

    References:
        Margossian et al. 2024. https://arxiv.org/abs/2110.13017

    Example:
        >>> drawn = np.random.default_rng(0).normal(size=(16, 50, 1))
        >>> bool(ensemble_rhat(drawn, superchains(16))[0] < 1.01)
        True
    """
    middle = np.median(positions[:, :: max(1, positions.shape[1] // 100)], axis=(0, 1))
    found = [_rhat(positions, groups), _rhat(np.abs(positions - middle), groups)]
    return np.maximum(*found)


def gate(
    name: str,
    positions: Float[np.ndarray, "chain draw D"],
    groups: Int[np.ndarray, " chain"] | None,
    sites: Sequence[tuple[str, Sequence[int]]],
    *,
    biased: bool = False,
    resting: bool = False,
    warn: bool = True,
    stacklevel: int = 4,
) -> dict[str, Any]:
    """Warn of draws that are biased, of chains that are stuck, and of an ensemble that is unmixed.

    Args:
        name: Name of the kernel.
        positions: Draws on the unconstrained space.
        groups: Number of the group of each chain, see `superchains`.
        sites: Name and unconstrained shape of each site, in the order of the coordinates.
        biased: Whether the kernel has another law than the posterior.
        resting: Whether a chain may rest where it is, as discrete ones do in a likely state.
        warn: Whether to warn, or only to say it in the attributes.
        stacklevel: That of the warning.

    Returns:
        What is known, as attributes of the posterior.

    Example:
        >>> drawn = np.random.default_rng(0).normal(size=(4, 500, 1))
        >>> gate("ChEES", drawn, None, [("mean", ())])["mixed"]
        True
    """
    said: list[str] = []
    attrs: dict[str, Any] = {"biased": True} if biased else {}
    if biased:
        said.append(
            f"The draws of {name} are biased: its steps are not tested against the density. Use "
            "kernel='mala' or 'chees' for draws of the posterior itself."
        )
    num_chains, num_draws, _ = positions.shape
    if num_draws < 4:
        said.append(
            f"{num_draws} draws of each chain are too few to tell whether the chains have mixed: "
            "keep at least 4."
        )
    else:
        rhat = ensemble_rhat(positions, groups)
        worst, where = float(rhat.max()), _label(sites, int(rhat.argmax()))
        limit, kind = (_LIMIT, "split R-hat") if groups is None else (_NESTED_LIMIT, "nested R-hat")
        stuck = 0 if resting else int((np.ptp(positions, axis=1) == 0).all(-1).sum())
        attrs |= {"ensemble_rhat": worst, "stuck_chains": stuck, "mixed": worst < limit}
        if not worst < limit or stuck:
            parts = f", and {stuck} of the chains never moved" if stuck else ""
            said.append(
                f"The {num_chains} chains of {name} have not mixed: {kind} is {worst:.3f} on "
                f"{where} (it should be below {limit}){parts}. Do not trust these draws: raise "
                "num_warmup and num_samples, reparametrise the model, look for several modes, or "
                "try kernel='nuts'."
            )
            attrs["mixed"] = False
    for sentence in said if warn else ():
        warnings.warn(sentence, UserWarning, stacklevel=stacklevel)
    return attrs


def _rhat(x: Float[np.ndarray, "chain draw D"], groups: np.ndarray | None) -> np.ndarray:
    if groups is None:
        half = x.shape[1] // 2
        x = np.concatenate([x[:, :half], x[:, -half:]])
        groups = np.arange(len(x))
    means = x.mean(axis=1, dtype=float)
    num = int(groups.max()) + 1
    grouped = means.reshape(num, -1, means.shape[-1])
    within = x.var(axis=1, ddof=1, dtype=float).mean(0)
    if grouped.shape[1] > 1:
        within = within + grouped.var(axis=1, ddof=1).mean(0)
    between = grouped.mean(1).var(axis=0, ddof=1)
    moving = (within > 0) | (between > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(moving, np.sqrt(1.0 + between / within), 1.0)


def _label(sites: Sequence[tuple[str, Sequence[int]]], element: int) -> str:
    for name, shape in sites:
        size = int(np.prod(shape))
        if element < size:
            where = ", ".join(str(int(i)) for i in np.unravel_index(element, tuple(shape)))
            return f"site '{name}[{where}]'" if shape else f"site '{name}'"
        element -= size
    return "a direction of the transformed space"
