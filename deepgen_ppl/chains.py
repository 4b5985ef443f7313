"""The chains: how well the draws of Markov chains mix, as numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

_MANY = 100  # of a site with more elements, only the suspicious ones are looked at


def worst_statistics(
    draws: Mapping[str, Float[np.ndarray, "chain draw *shape"]],
    superchains: Int[np.ndarray, " chain"] | None = None,
) -> dict[str, tuple[float, str]]:
    """The worst R-hat, nested R-hat, bulk ESS and tail ESS over all elements of all sites.

    The numbers are ArviZ's, tail ESS at the 5% and 95% quantiles. Elements that never vary over any
    draw (structural zeros, say) are left out; one that does not vary within a chain but between
    chains has an infinite R-hat, and one of whole numbers has it where it varies within no chain.

    Args:
        draws: Sites to draws, at least 4 of them a chain.
        superchains: Number of the group of each chain that set out from one point, where there are
            such groups: then there is a nested R-hat.

    Returns:
        ``"R-hat"``, ``"nested R-hat"``, ``"bulk ESS"`` and ``"tail ESS"`` to the value and the
        element that has it, such as ``"theta[3]"``; what no element has is missing.

    Cost:
        About 3 ms an element; of a site with more than 100 elements, the 100 with the largest split
        R-hat and autocorrelation are looked at.

    References:
        Vehtari, Gelman, Simpson, Carpenter, Bürkner: Rank-normalization, folding, and localization:
        an improved R-hat. Bayesian Analysis 16(2), 2021. https://arxiv.org/abs/1903.08008

        Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari, Gelman: Nested R-hat: assessing the
        convergence of Markov chain Monte Carlo when running many short chains. Bayesian Analysis,
        2024. https://arxiv.org/abs/2110.13017

    Example:
        >>> rng = np.random.default_rng(0)
        >>> drawn = rng.normal(size=(4, 100, 2))
        >>> drawn[0, :, 1] += 9.0
        >>> worst_statistics({"z": drawn})["R-hat"][1]
        'z[1]'
    """
    found: dict[str, list[tuple[float, str]]] = {}
    for site, value in draws.items():
        value = np.asarray(value)
        counting = value.dtype.kind in "iub"
        for label, series in _suspects(site, value):
            for name, number in _chain_statistics(series, superchains, counting).items():
                found.setdefault(name, []).append((number, label))
    return {n: (max if n.endswith("R-hat") else min)(pairs) for n, pairs in found.items()}


def energy_bfmi(energy: Float[np.ndarray, "chain draw"]) -> Float[np.ndarray, "chain"]:
    """Estimated Bayesian fraction of missing information of each chain; nan where there is none.

    Args:
        energy: Energy (Hamiltonian) at each draw.

    References:
        Betancourt: Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo.
        2016. https://arxiv.org/abs/1604.00695

    Example:
        >>> bool(energy_bfmi(np.random.default_rng(0).normal(size=(1, 1000)))[0] > 1.5)
        True
    """
    if energy.shape[1] < 4:
        return np.full(len(energy), np.nan)
    variance = energy.var(axis=1, ddof=1)
    return np.square(np.diff(energy, axis=1)).mean(axis=1) / np.where(
        variance > 0, variance, np.nan
    )


def classic_rhat(
    draws: Float[np.ndarray, "chain draw *shape"],
) -> Float[np.ndarray, "*shape"]:
    """Potential scale reduction of each element, of many at once; inf where chains never move.

    Args:
        draws: Draws of some chains.

    References:
        Gelman and Rubin: Inference from iterative simulation using multiple sequences. Statistical
        Science 7(4), 1992. https://doi.org/10.1214/ss/1177011136

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(8, 50, 3))
        >>> bool(classic_rhat(draws).max() < 1.1)
        True
    """
    num = draws.shape[1]
    draws = np.asarray(draws, np.float64)
    within = draws.var(axis=1, ddof=1).mean(axis=0)
    between = draws.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(all="ignore"):
        found = np.sqrt((num - 1) / num + between / within)
    return np.where(within > 0.0, found, np.where(between > 0.0, np.inf, 1.0))


def _chain_statistics(
    series: Float[np.ndarray, "chain draw"], superchains: np.ndarray | None, counting: bool
) -> dict[str, float]:
    from arviz_stats.base import array_stats

    nested = {} if superchains is None else {"nested R-hat": np.inf}
    still = np.ptp(series, axis=1) == 0
    # a chain of a discrete site may well stay with its likely value, as long as not all do
    if (still.all() if counting else still.any()) or not np.isfinite(series).all():
        return {"R-hat": np.inf, **nested, "bulk ESS": 0.0, "tail ESS": 0.0}
    stats: Any = array_stats
    with np.errstate(all="ignore"):
        found = {
            "R-hat": float(stats.rhat(series)),
            "bulk ESS": float(stats.ess(series, method="bulk")),
            "tail ESS": float(stats.ess(series, method="tail", prob=(0.05, 0.95))),
        }
        if superchains is not None:
            found["nested R-hat"] = float(stats.rhat_nested(series, superchains))
    # quantiles of a discrete site may not vary: then there is no tail to speak of
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _suspects(site: str, value: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The scalar series of a site that vary, with their labels; the most suspicious of many."""
    shape = value.shape[2:]
    flat = value.reshape(*value.shape[:2], int(np.prod(shape)))
    for index in _chosen(flat):
        where = ", ".join(str(int(i)) for i in np.unravel_index(index, shape))
        yield (f"{site}[{where}]" if shape else site), flat[:, :, index].astype(float)


def _chosen(flat: np.ndarray, size: int = 1_000) -> np.ndarray:
    """Indices of the elements to look at: all that vary, or the most suspicious of them."""
    scores = [np.zeros((2, 0))]
    for start in range(0, flat.shape[2], size):  # a part at a time is held in double precision
        scores.append(_suspicion(flat[:, :, start : start + size].astype(float)))
    split_rhat, autocorrelation = np.concatenate(scores, axis=1)
    varying = np.flatnonzero(split_rhat > -np.inf)
    if len(varying) <= _MANY:
        return varying
    orders = [np.argsort(-s)[: _MANY // 2] for s in (split_rhat, autocorrelation)]
    return np.unique(np.concatenate(orders))


def _suspicion(flat: Float[np.ndarray, "chain draw n"]) -> Float[np.ndarray, "2 n"]:
    """Split R-hat and autocorrelation at lag one: inf where not finite, -inf where constant."""
    half = flat.shape[1] // 2
    split = np.concatenate([flat[:, :half], flat[:, -half:]])
    with np.errstate(all="ignore"):
        constant = np.ptp(flat, axis=(0, 1)) == 0
        ratio = split.mean(axis=1).var(axis=0) / split.var(axis=1).mean(axis=0)
        centred = flat - flat.mean(axis=(0, 1))
        lagged = (centred[:, 1:] * centred[:, :-1]).mean(axis=(0, 1))
        scores = np.stack([ratio, lagged / (centred**2).mean(axis=(0, 1))])
    return np.where(constant, -np.inf, np.nan_to_num(scores, nan=np.inf, posinf=np.inf))


def check_counts(**counts: int) -> None:
    """Refuse numbers of steps, draws and chains that are none, and thinning that keeps no draw.

    Args:
        **counts: `num_warmup`, which may be zero, `num_samples`, `thinning` and others by name.

    Raises:
        ValueError: Naming the argument and its value.
    """
    for name, value in counts.items():
        least = 0 if name == "num_warmup" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    if counts["thinning"] > counts["num_samples"]:
        raise ValueError(
            f"thinning={counts['thinning']} keeps no draw of num_samples={counts['num_samples']}."
        )
