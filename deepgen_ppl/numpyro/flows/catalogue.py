"""The published flows: thin configurations of the layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from deepgen_ppl import flow_checks, networks
from deepgen_ppl.numpyro.flows.actnorm import ActNorm
from deepgen_ppl.numpyro.flows.affine import Additive, Affine
from deepgen_ppl.numpyro.flows.autoregressive import Autoregressive
from deepgen_ppl.numpyro.flows.coupling import Coupling
from deepgen_ppl.numpyro.flows.flow import Flow
from deepgen_ppl.numpyro.flows.layer import Chain, Layer, Stack
from deepgen_ppl.numpyro.flows.permutation import Permutation, Reverse
from deepgen_ppl.numpyro.flows.spline import Spline


def stacked(
    make: Callable[[np.random.Generator], Layer], transforms: int, seed: int, *ends: Layer
) -> Layer:
    """Return layers of one kind, each with its own initial weights, then some others."""
    flow_checks.whole("transforms", transforms)
    rng = np.random.default_rng(seed)
    layers = [make(rng) for _ in range(transforms)]
    body: Layer = Stack(layers) if transforms > 1 else layers[0]
    return Chain((body, *ends)) if ends else body


def ordered(
    make: Callable[[np.random.Generator], Layer],
    features: int,
    transforms: int,
    order: str,
    seed: int,
    *ends: Layer,
) -> Layer:
    """Return layers as `stacked` does, with the features in another order after each of them."""
    flow_checks.whole("transforms", transforms)
    flow_checks.choice("order", order, flow_checks.ORDERS)
    moves: list[Layer] = [Reverse(features) for _ in range(transforms)]
    if order == "random":
        drawn = networks.reorderings(features, transforms, np.random.default_rng((seed, 1)))
        moves = [Permutation(tuple(move.tolist())) for move in drawn]
    after = iter(moves)
    return stacked(lambda rng: Chain((make(rng), next(after))), transforms, seed, *ends)


def autoregressive_layers(
    univariate: Any,
    features: int,
    context: int,
    hidden: Sequence[int],
    transforms: int,
    order: str,
    seed: int,
    **options: Any,
) -> Layer:
    """Return autoregressive layers, each of which sees the features in an order of its own."""
    orders = iter(networks.orders(features, transforms, order, seed))
    make = partial(Autoregressive, features, context, univariate, hidden, **options)
    return stacked(lambda rng: make(order=next(orders), seed=rng), transforms, seed)


def NICE(
    features: int,
    context: int = 0,
    *,
    transforms: int = 4,
    hidden: Sequence[int] = (64, 64),
    order: str = "random",
    activation: str = "relu",
    support: Any = None,
    seed: int = 0,
) -> Flow:
    """Return a flow of additive couplings, which keep volumes, with a scale of each feature.

    Args:
        features: number of features, 2 or more.
        context: number of context features.
        transforms: number of couplings.
        hidden: units of each hidden layer.
        order: what is done with the features after each layer: "reverse" turns their order round,
            "random" draws a new one (by `seed`) after every second layer.
        activation: "relu", "tanh", "silu", "elu" or "softplus".
        support: constraint of the values.
        seed: seed of the initial weights.

    Cost:
        Both directions take one pass of each network.

    References:
        Dinh, Krueger, Bengio: NICE, non-linear independent components estimation. 2014.
        https://arxiv.org/abs/1410.8516

    Example:
        >>> NICE(2).fast
        'both'
    """

    def make(rng: np.random.Generator) -> Layer:
        options: dict[str, Any] = {"activation": activation, "seed": rng}
        return Coupling(features, context, Additive(), hidden, **options)

    flow_checks.sizes(features, context, hidden, 2, "NICE")
    return Flow(ordered(make, features, transforms, order, seed, ActNorm(features)), support)


def RealNVP(
    features: int,
    context: int = 0,
    *,
    transforms: int = 4,
    hidden: Sequence[int] = (64, 64),
    order: str = "random",
    least: float = 0.15,
    along: str = "pull",
    activation: str = "relu",
    identity: bool = True,
    support: Any = None,
    seed: int = 0,
) -> Flow:
    """Return a flow of affine couplings.

    Args:
        features: number of features, 2 or more.
        context: number of context features.
        transforms: number of couplings.
        hidden: units of each hidden layer.
        order: what is done with the features after each layer: "reverse" turns their order round,
            "random" draws a new one (by `seed`) after every second layer.
        least: least scale of a layer, reached softly; above 1 scales are linear.
        along: the way that scales and shifts are of: "pull" (from data to base) trains densities
            more steadily, "push" (from base to data) is for guides.
        activation: "relu", "tanh", "silu", "elu" or "softplus".
        identity: whether the flow begins as the identity; otherwise last layers of networks are
            drawn as the others are, which learns sharp densities in fewer steps.
        support: constraint of the values.
        seed: seed of the initial weights.

    Cost:
        Both directions take one pass of each network.

    References:
        Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP. ICLR 2017.
        https://arxiv.org/abs/1605.08803

    Example:
        >>> RealNVP(2).fast
        'both'
    """

    def make(rng: np.random.Generator) -> Layer:
        options: dict[str, Any] = {"along": along, "activation": activation}
        options |= {"identity": identity, "seed": rng}
        return Coupling(features, context, Affine(least), hidden, **options)

    flow_checks.fraction("least", least)
    flow_checks.sizes(features, context, hidden, 2, "RealNVP")
    return Flow(ordered(make, features, transforms, order, seed), support)


def NSF(
    features: int,
    context: int = 0,
    *,
    transforms: int = 4,
    hidden: Sequence[int] = (64, 64),
    bins: int = 8,
    bound: float = 5.0,
    autoregressive: bool = False,
    order: str = "random",
    activation: str = "relu",
    support: Any = None,
    seed: int = 0,
) -> Flow:
    """Return a neural spline flow: rational quadratic splines, by couplings or autoregressive.

    Args:
        features: number of features; 2 or more for couplings.
        context: number of context features.
        transforms: number of layers.
        hidden: units of each hidden layer.
        bins: pieces of each spline.
        bound: splines are the identity outside of (-bound, bound): standardise the data.
        autoregressive: whether each feature is moved given all before it, with fast densities,
            rather than one half given the other.
        order: what is done with the features after each layer: "reverse" turns their order round,
            "random" draws a new one (by `seed`) after every second layer; of autoregressive ones as
            of `MAF`.
        activation: "relu", "tanh", "silu", "elu" or "softplus".
        support: constraint of the values.
        seed: seed of the initial weights.

    Cost:
        Couplings take one pass of each network in both directions; autoregressive layers take one
        for densities and D steps for draws.

    References:
        Durkan, Bekasov, Murray, Papamakarios: Neural spline flows. NeurIPS 2019.
        https://arxiv.org/abs/1906.04032

    Example:
        >>> NSF(1, autoregressive=True).fast
        'pull'
    """
    spline = Spline(bins, bound)
    if autoregressive:
        sizes = features, context, hidden, transforms, order, seed
        return Flow(autoregressive_layers(spline, *sizes, activation=activation), support)

    def make(rng: np.random.Generator) -> Layer:
        return Coupling(features, context, spline, hidden, activation=activation, seed=rng)

    flow_checks.sizes(features, context, hidden, 2, "NSF by couplings")
    return Flow(ordered(make, features, transforms, order, seed), support)


def MAF(
    features: int,
    context: int = 0,
    *,
    transforms: int = 4,
    hidden: Sequence[int] = (64, 64),
    order: str = "random",
    least: float = 0.15,
    activation: str = "relu",
    identity: bool = True,
    support: Any = None,
    seed: int = 0,
) -> Flow:
    """Return a masked autoregressive flow, whose densities are fast.

    Args:
        features: number of features.
        context: number of context features.
        transforms: number of layers.
        hidden: units of each hidden layer.
        order: the order in which layers see the features, from that of their numbers next to the
            data on: "random" draws another one (by `seed`) for each, "reverse" turns it round.
        least: least scale of a layer, reached softly; above 1 scales are linear.
        activation: "relu", "tanh", "silu", "elu" or "softplus".
        identity: whether the flow begins as the identity; otherwise last layers of networks are
            drawn as the others are, which learns sharp densities in fewer steps.
        support: constraint of the values.
        seed: seed of the initial weights.

    Cost:
        One pass of each network for densities. Draws take D steps for each layer that together
        visit each weight once, the arithmetic of about one pass.

    References:
        Papamakarios, Pavlakou, Murray: Masked autoregressive flow for density estimation. NeurIPS
        2017. https://arxiv.org/abs/1705.07057

    Example:
        >>> MAF(2).fast
        'pull'
    """
    sizes = features, context, hidden, transforms, order, seed
    options: dict[str, Any] = {"activation": activation, "identity": identity}
    return Flow(autoregressive_layers(Affine(least), *sizes, **options), support)


def IAF(
    features: int,
    context: int = 0,
    *,
    transforms: int = 4,
    hidden: Sequence[int] = (64, 64),
    order: str = "random",
    least: float = 0.15,
    activation: str = "relu",
    support: Any = None,
    seed: int = 0,
) -> Flow:
    """Return an inverse autoregressive flow, whose draws are fast: a family for guides.

    Args:
        features: number of features.
        context: number of context features.
        transforms: number of layers.
        hidden: units of each hidden layer.
        order: the order in which layers see the features, from that of their numbers next to the
            data on: "random" draws another one (by `seed`) for each, "reverse" turns it round.
        least: least scale of a layer, reached softly; above 1 scales are linear.
        activation: "relu", "tanh", "silu", "elu" or "softplus".
        support: constraint of the values.
        seed: seed of the initial weights.

    Cost:
        One pass of each network for draws with their densities; densities of other values take D
        steps for each layer.

    References:
        Kingma et al.: Improved variational inference with inverse autoregressive flow. NeurIPS
        2016. https://arxiv.org/abs/1606.04934

    Example:
        >>> IAF(2).fast
        'push'
    """
    sizes = features, context, hidden, transforms, order, seed
    layers = autoregressive_layers(Affine(least), *sizes, fast="push", activation=activation)
    return Flow(layers, support)
