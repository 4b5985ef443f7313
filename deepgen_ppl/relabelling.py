"""Label switching: permutations that give the components of every draw the same names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Method = Literal["stephens", "ecr"]
_TINY = 1e-12


def permutations(
    responsibilities: Float[np.ndarray, "S N K"],
    pivot: int = 0,
    method: Method = "stephens",
    num_rounds: int = 50,
) -> Int[np.ndarray, "S K"]:
    r"""Return, for every draw, which of its components each common name stands for.

    Stephens' algorithm minimises, over the permutations, the loss of reporting one matrix Q of
    probabilities for all draws,

    \[ \sum_s \sum_{nk} p^s_{n \nu_s(k)} \log \frac{p^s_{n \nu_s(k)}}{q_{nk}}, \qquad
       q_{nk} = \frac1S \sum_s p^s_{n \nu_s(k)}, \]

    by turns until nothing changes, starting at Q = the pivot's. ECR matches every draw's most
    likely assignments with those of the pivot, once.

    Args:
        responsibilities: p(z_n = k | x_n, draw s).
        pivot: the draw whose names are kept, such as the one of highest density.
        method: "stephens" or "ecr".
        num_rounds: most rounds.

    Returns:
        Numbers of components: those of draw s in common order are `values[s][found[s]]`.

    Raises:
        ValueError: an unknown method, or a pivot that is no draw.

    Cost:
        S assignment problems of size K a round, and two products of an (S K, N) matrix with an
        (N, K) one.

    References:
        Stephens: Dealing with label switching in mixture models. JRSS B 62, 2000.

        Papastamoulis, Iliopoulos: An artificial allocations based solution to the label switching
        problem in Bayesian analysis of mixtures of distributions. JCGS 19, 2010.

    Example:
        >>> first = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> permutations(np.stack([first, first[:, ::-1]])).tolist()
        [[0, 1], [1, 0]]
    """
    probabilities = np.asarray(responsibilities, float)
    count, _, size = probabilities.shape
    if method not in ("stephens", "ecr"):
        raise ValueError(f"method must be 'stephens' or 'ecr', not {method!r}.")
    if not 0 <= pivot < count:
        raise ValueError(f"pivot={pivot} is none of the {count} draws.")
    if method == "ecr":
        most = np.eye(size)[probabilities.argmax(2)]
        return _match(-np.einsum("snl,nk->skl", most, most[pivot]))
    entropy = (probabilities * np.log(probabilities + _TINY)).sum(1)  # (S, K)
    common = probabilities[pivot]
    found = np.tile(np.arange(size), (count, 1))
    for number in range(num_rounds):
        cross = np.einsum("snl,nk->skl", probabilities, np.log(common + _TINY), optimize=True)
        new = _match(entropy[:, None, :] - cross)
        if number and np.array_equal(new, found):
            break
        found = new
        named = np.take_along_axis(probabilities, found[:, None, :], axis=2)
        common = named.mean(0)
    return found


def permute(
    values: Float[np.ndarray, "S K *rest"], order: Int[np.ndarray, "S K"]
) -> Float[np.ndarray, "S K *rest"]:
    """Return values of components in their common order.

    Example:
        >>> permute(np.array([[1.0, 2.0]]), np.array([[1, 0]])).tolist()
        [[2.0, 1.0]]
    """
    index = order.reshape(*order.shape, *(1,) * (values.ndim - 2))
    return np.take_along_axis(values, index, axis=1)


def sticks(weights: Float[np.ndarray, "*lead K"]) -> Float[np.ndarray, "*lead K_less_one"]:
    r"""Return the shares of what is left that break a stick into given weights.

    \[ v_k = \frac{w_k}{1 - \sum_{j < k} w_j} \]

    Example:
        >>> sticks(np.array([0.5, 0.25, 0.25])).tolist()
        [0.5, 0.5]
    """
    weights = np.asarray(weights)
    left = 1 - np.cumsum(weights, -1) + weights
    tiny = np.finfo(weights.dtype).eps
    return np.clip(weights[..., :-1] / np.maximum(left[..., :-1], tiny), tiny, 1 - tiny)


def weights(broken: Float[np.ndarray, "*lead K_less_one"]) -> Float[np.ndarray, "*lead K"]:
    """Return the weights that sticks break into, the inverse of `sticks`.

    Example:
        >>> weights(np.array([0.5, 0.5])).tolist()
        [0.5, 0.25, 0.25]
    """
    broken = np.asarray(broken)
    one = np.ones((*broken.shape[:-1], 1), broken.dtype)
    left = np.concatenate([one, np.cumprod(1 - broken, -1)], -1)
    return np.concatenate([broken, one], -1) * left


def _match(cost: Float[np.ndarray, "S K K"]) -> Int[np.ndarray, "S K"]:
    """Return the cheapest one-to-one choice of a component (last axis) for each name."""
    if cost.shape[1] <= 3:
        return _cheapest(cost)
    from scipy.optimize import linear_sum_assignment

    return np.stack([linear_sum_assignment(table)[1] for table in cost])


def _cheapest(cost: Float[np.ndarray, "S K K"]) -> Int[np.ndarray, "S K"]:
    """Do as `_match` does, for few components: all permutations at once."""
    from itertools import permutations as orders

    size = cost.shape[1]
    every: Sequence[tuple[int, ...]] = list(orders(range(size)))
    totals = np.stack([cost[:, np.arange(size), order].sum(1) for order in every], 1)
    return np.array(every)[totals.argmin(1)]
