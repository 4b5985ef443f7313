"""Layers of deep Boltzmann machines: bad input, initial weights, how a bottom-up pass counts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from deepgen_ppl.energies import check_weights, small_weights
from deepgen_ppl.flow_checks import whole


def check_hidden_layers(hidden: Any) -> tuple[int, ...]:
    """Return the sizes of hidden layers.

    Raises:
        ValueError: there is none, or one is no whole number.

    Example:
        >>> check_hidden_layers([4, 3])
        (4, 3)
    """
    if isinstance(hidden, str) or not isinstance(hidden, Sequence) or not len(hidden):
        raise ValueError(f"hidden must list the units of each hidden layer, got {hidden!r}.")
    return tuple(whole("hidden", size) for size in hidden)


def check_layers(given: int, own: int) -> None:
    """Refuse another number of hidden layers than a machine's own.

    Raises:
        ValueError: naming both.
    """
    if given != own:
        raise ValueError(f"this DBM has {own} hidden layers, and units of {given} were given.")


def check_layer_weights(
    weights: Sequence[Any],
    biases: Sequence[Any],
    own_weights: Sequence[Any],
    own_biases: Sequence[Any],
) -> None:
    """Refuse weights of layers of other shapes than a machine's own.

    Args:
        weights: the matrices.
        biases: the biases.
        own_weights: shapes of the machine's matrices.
        own_biases: shapes of its biases.

    Raises:
        ValueError: naming the first that differs.

    Example:
        >>> check_layer_weights([np.zeros((2, 3))], [], [(3, 2)], [])
        Traceback (most recent call last):
        ...
        ValueError: weights[0] has shape (2, 3); this energy's has (3, 2).
    """
    for name, given, own in (("weights", weights, own_weights), ("biases", biases, own_biases)):
        if len(given) != len(own):
            raise ValueError(f"{name} must be {len(own)} arrays, one a layer, got {len(given)}.")
        shapes = {f"{name}[{i}]": tuple(np.shape(x)) for i, x in enumerate(given)}
        check_weights(shapes, {f"{name}[{i}]": tuple(shape) for i, shape in enumerate(own)})


def small_matrices(
    seed: int | np.random.Generator, sizes: Sequence[int]
) -> list[Float[np.ndarray, "below above"]]:
    """Draw the initial weights of layers, each to the one above.

    Args:
        seed: seed, or a NumPy generator.
        sizes: number of statistics of each layer.

    Example:
        >>> [w.shape for w in small_matrices(0, (4, 3, 2))]
        [(4, 3), (3, 2)]
    """
    rng = np.random.default_rng(seed)
    return [small_weights(rng, below, above) for below, above in pairwise(sizes)]


def shifts(weights: Sequence[Any], means: Sequence[Any]) -> list[Any]:
    """Return what the units of each layer get where their neighbours have these means.

    Args:
        weights: the matrices, from the visible layer, of NumPy or of a wing.
        means: mean statistics of each layer.

    Example:
        >>> shifts([np.ones((2, 1))], [np.ones(2), np.ones(1)])
        [array([1., 1.]), array([2.])]
    """
    found = []
    for number, mean in enumerate(means):
        below = means[number - 1] @ weights[number - 1] if number else 0.0 * mean
        above = weights[number] @ means[number + 1] if number < len(weights) else 0.0 * mean
        found.append(below + above)
    return found


def recognition_gains(depth: int) -> tuple[float, ...]:
    """Return by how much each layer's weights count in the bottom-up pass of a deep machine.

    They are doubled below the top, in place of what the layer above would add.

    Args:
        depth: number of hidden layers.

    References:
        Salakhutdinov, Larochelle: Efficient learning of deep Boltzmann machines. AISTATS 2010.
        https://proceedings.mlr.press/v9/salakhutdinov10a.html

    Example:
        >>> recognition_gains(3)
        (2.0, 2.0, 1.0)
    """
    return (2.0,) * (depth - 1) + (1.0,)


def check_machine(is_machine: bool, given: Any) -> None:
    """Refuse what is no deep Boltzmann machine.

    Raises:
        TypeError: naming what it is.
    """
    if not is_machine:
        raise TypeError(f"pretrain_dbm takes a DBM, not {type(given).__name__}.")


def copies(number: int, depth: int) -> tuple[int, int]:
    """Return how many copies of visible and hidden units a layer is pretrained with.

    Args:
        number: number of the layer, from 0.
        depth: number of hidden layers.

    Example:
        >>> [copies(number, 3) for number in range(3)]
        [(2, 1), (1, 1), (1, 2)]
    """
    if depth == 1:
        return 1, 1
    return (2 if number == 0 else 1), (2 if number == depth - 1 else 1)


def put_together(
    weights: Sequence[np.ndarray], biases: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the weights and biases of the deep machine of pretrained layers.

    Weights between the lowest layer and the top one are halved; a hidden layer that two machines
    share has the mean of their biases.

    Args:
        weights: weights of each layer.
        biases: biases of its visible and of its hidden units.

    References:
        Salakhutdinov, Hinton: Deep Boltzmann machines. AISTATS 2009.
        https://proceedings.mlr.press/v5/salakhutdinov09a.html

    Example:
        >>> one, two = np.ones(1), 2 * np.ones(1)
        >>> put_together([np.ones((1, 1))] * 2, [(one, one), (two, two)])[1]
        [array([1.]), array([1.5]), array([2.])]
    """
    last = len(weights) - 1
    halved = [w if number in (0, last) else 0.5 * w for number, w in enumerate(weights)]
    between = [0.5 * (below[1] + above[0]) for below, above in pairwise(biases)]
    return halved, [biases[0][0], *between, biases[-1][1]]
