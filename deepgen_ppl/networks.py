"""Initial weights of networks and the masks of autoregressive ones, equal on both wings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from deepgen_ppl import flow_checks


class Weights(NamedTuple):
    """Initial weights of a network.

    Attributes:
        weights: of each layer, shape (inputs, outputs).
        biases: of each layer, shape (outputs,).
        from_context: of the context into the first layer, shape (context, outputs), or None.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    from_context: np.ndarray | None


def initial_weights(
    rng: np.random.Generator,
    inputs: int,
    outputs: int,
    hidden: Sequence[int],
    context: int = 0,
    zero: bool = True,
) -> Weights:
    r"""Draw the weights of a network, uniform on \(\pm 1/\sqrt{\text{inputs}}\) of each layer.

    Args:
        rng: source of the draws.
        inputs: number of inputs.
        outputs: number of outputs.
        hidden: units of each hidden layer.
        context: further inputs, that no mask applies to.
        zero: whether the last layer is zero, so that the network's output is too.

    Example:
        >>> drawn = initial_weights(np.random.default_rng(0), 3, 2, (5,), context=1)
        >>> [w.shape for w in drawn.weights], drawn.from_context.shape
        ([(3, 5), (5, 2)], (1, 5))
    """
    layers = (inputs, *hidden, outputs)
    weights, biases, from_context = [], [], None
    for number, (before, after) in enumerate(pairwise(layers)):
        fan_in = before + context if number == 0 else before
        bound = 1.0 / max(fan_in, 1) ** 0.5
        drawn = rng.uniform(-bound, bound, (fan_in + 1, after))
        if zero and number == len(hidden):
            drawn = np.zeros_like(drawn)
        weights.append(drawn[:before])
        biases.append(drawn[-1])
        if number == 0 and context:
            from_context = drawn[before:-1]
    return Weights(tuple(weights), tuple(biases), from_context)


def groups(features: int, hidden: Sequence[int], context: int = 0) -> tuple[np.ndarray, ...]:
    """Return the group of each unit of an autoregressive network, layer by layer, in order.

    A unit of group g sees inputs before g and units of groups up to g; output i sees groups up to
    i.
    Group 0, which sees the context only, exists where there is one.

    Args:
        features: number of features.
        hidden: units of each hidden layer.
        context: number of context features.

    References:
        Germain, Gregor, Murray, Larochelle: MADE, masked autoencoder for distribution estimation.
        ICML 2015. https://arxiv.org/abs/1502.03509

    Example:
        >>> [g.tolist() for g in groups(3, (4,))]
        [[1, 1, 2, 2]]
        >>> [g.tolist() for g in groups(3, (4,), context=1)]
        [[0, 0, 1, 2]]
    """
    first = 0 if context or features == 1 else 1
    number = features - first
    return tuple(first + np.arange(units) * number // units for units in hidden)


def masks(
    features: int,
    hidden: Sequence[int],
    outputs: int,
    context: int = 0,
    inputs: int = 1,
    order: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Return the mask of each layer of an autoregressive network, of ones and zeros.

    Args:
        features: number of features.
        hidden: units of each hidden layer.
        outputs: outputs of each feature; output p of feature i is number p * features + i.
        context: number of context features.
        inputs: inputs of each feature; input e of feature i is number i * inputs + e.
        order: the features in the order in which each sees those before it, an array of NumPy or
            JAX; the order of their numbers when None.

    Example:
        >>> masks(2, (), 1)[0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]
        >>> masks(2, (), 1, order=np.array([1, 0]))[0].tolist()
        [[0.0, 0.0], [1.0, 0.0]]
    """
    place = np.arange(features) if order is None else order.argsort()
    units = [(place + 1).repeat(inputs), *groups(features, hidden, context)]
    units.append(place[None].repeat(outputs, 0).reshape(-1))
    return [(a[:, None] <= b[None, :]).astype(float) for a, b in pairwise(units)]


def reorderings(features: int, layers: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw the order of features that each of several layers works in, as moves between them.

    The first layer works in the order given; layers come in pairs, the second of which works in the
    reverse of the first one's order, and each pair after the first one draws its own.

    Args:
        features: number of features.
        layers: number of layers.
        rng: source of the draws.

    Returns:
        What is done after each layer; all of them together do nothing.

    Example:
        >>> moves = reorderings(4, 3, np.random.default_rng(0))
        >>> moves[0].tolist()
        [3, 2, 1, 0]
        >>> np.arange(4)[moves[0]][moves[1]][moves[2]].tolist()
        [0, 1, 2, 3]
    """
    orders = [np.arange(features)]
    for number in range(1, layers):
        orders.append(orders[-1][::-1] if number % 2 else rng.permutation(features))
    orders.append(orders[0])
    return [np.argsort(before)[after] for before, after in pairwise(orders)]


def orders(features: int, layers: int, kind: str, seed: int = 0) -> list[np.ndarray]:
    """Return the orders in which autoregressive layers see the features, from base to data.

    The layer next to the data sees them in the order of their numbers.

    Args:
        features: number of features.
        layers: number of layers.
        kind: "reverse" turns the order round from layer to layer, "random" draws another one.
        seed: seed of the flow; orders are drawn beside its weights, from a stream of their own.

    Raises:
        ValueError: sizes that are no whole numbers, or another kind.

    Example:
        >>> [order.tolist() for order in orders(3, 2, "reverse")]
        [[2, 1, 0], [0, 1, 2]]
    """
    flow_checks.whole("transforms", layers)
    flow_checks.whole("features", features)
    flow_checks.choice("order", kind, flow_checks.ORDERS)
    rng = np.random.default_rng((seed, 1))
    found = [np.arange(features)]
    while len(found) < layers:
        drawn = found[-1][::-1]
        while kind == "random":
            drawn = rng.permutation(features)
            if features == 1 or (drawn != found[-1]).any():
                break
        found.append(drawn)
    return found[::-1]


def initial_convolutions(
    seed: int | np.random.Generator, inputs: int, outputs: int, channels: int, context: int = 0
) -> Weights:
    """Draw the weights of convolutions of 3 x 3, 1 x 1 and 3 x 3 pixels, the last ones zero.

    Args:
        seed: source of the draws.
        inputs: channels of the input.
        outputs: channels of the output.
        channels: hidden channels.
        context: number of context features, which enter after the first convolution.

    Returns:
        Weights of shape (height, width, inputs, outputs).

    Example:
        >>> [w.shape for w in initial_convolutions(0, 1, 2, 8).weights]
        [(3, 3, 1, 8), (1, 1, 8, 8), (3, 3, 8, 2)]
    """
    rng = np.random.default_rng(seed)
    weights, biases = [], []
    for width, before, after in ((3, inputs, channels), (1, channels, channels)):
        bound = 1.0 / (width * width * before) ** 0.5
        weights.append(rng.uniform(-bound, bound, (width, width, before, after)))
        biases.append(rng.uniform(-bound, bound, after))
    weights.append(np.zeros((3, 3, channels, outputs)))
    biases.append(np.zeros(outputs))
    bound = 1.0 / max(context, 1) ** 0.5
    from_context = rng.uniform(-bound, bound, (context, channels)) if context else None
    return Weights(tuple(weights), tuple(biases), from_context)
