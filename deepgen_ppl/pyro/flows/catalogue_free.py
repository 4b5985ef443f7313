"""The published flows of other kinds: residual, neural, continuous, and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepgen_ppl import flow_checks
from deepgen_ppl.pyro.flows.catalogue import autoregressive_layers, stacked
from deepgen_ppl.pyro.flows.continuous import Continuous
from deepgen_ppl.pyro.flows.flow import Flow
from deepgen_ppl.pyro.flows.glow import multi_scale
from deepgen_ppl.pyro.flows.layer import Chain, Layer
from deepgen_ppl.pyro.flows.logit import Logit
from deepgen_ppl.pyro.flows.monotone import Integral, Sigmoids
from deepgen_ppl.pyro.flows.residual import PlanarLayer, RadialLayer, SylvesterLayer


def Planar(
    features: int,
    context: int = 0,
    *,
    transforms: int = 8,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    support: Any = None,
    seed: int = 0,
) -> Flow:
    r"""Return a flow of planar layers, an expressive family of few parameters for guides.

    Args:
        features: number of features.
        context: number of context features.
        transforms: number of layers.
        hidden: units of each hidden layer of the contexts' networks.
        activation: "relu", "tanh", "silu", "elu" or "softplus".
        support: constraint of the values.
        seed: seed of the initial weights.

    Cost:
        A product a layer for draws; densities of other values solve a scalar equation each.

    References:
        Rezende, Mohamed: Variational inference with normalizing flows. ICML 2015.
        https://arxiv.org/abs/1505.05770

    Example:
        >>> Planar(2).fast
        'push'
    """

    def make(rng: np.random.Generator) -> Layer:
        options: dict[str, Any] = {"activation": activation, "seed": rng}
        return PlanarLayer(features, context, hidden, **options)

    return Flow(stacked(make, transforms, seed), support)


def Radial(
    features: int,
    context: int = 0,
    *,
    transforms: int = 8,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    support: Any = None,
    seed: int = 0,
) -> Flow:
    r"""Return a flow of radial layers.

    Args:
        features: number of features.
        context: number of context features.
        transforms: number of layers.
        hidden: units of each hidden layer of the contexts' networks.
        activation: "relu", "tanh", "silu", "elu" or "softplus".
        support: constraint of the values.
        seed: seed of the initial weights.

    Cost:
        A distance a layer in both directions.

    References:
        Rezende, Mohamed: Variational inference with normalizing flows. ICML 2015.
        https://arxiv.org/abs/1505.05770

    Example:
        >>> Radial(2).fast
        'both'
    """

    def make(rng: np.random.Generator) -> Layer:
        options: dict[str, Any] = {"activation": activation, "seed": rng}
        return RadialLayer(features, context, hidden, **options)

    return Flow(stacked(make, transforms, seed), support)


def Sylvester(
    features: int,
    context: int = 0,
    *,
    transforms: int = 4,
    hidden: Sequence[int] = (64, 64),
    units: int | None = None,
    activation: str = "relu",
    support: Any = None,
    seed: int = 0,
) -> Flow:
    r"""Return a flow of Sylvester layers, planar ones of several units.

    Args:
        features: number of features.
        context: number of context features.
        transforms: number of layers.
        hidden: units of each hidden layer of the contexts' networks.
        units: hidden units of each layer; the features, but at most 4, when None.
        activation: "relu", "tanh", "silu", "elu" or "softplus".
        support: constraint of the values.
        seed: seed of the initial weights.

    Cost:
        M products a layer for draws; densities of other values solve M scalar equations each.

    References:
        van den Berg, Hasenclever, Tomczak, Welling: Sylvester normalizing flows for variational
        inference. UAI 2018. https://arxiv.org/abs/1803.05649

    Example:
        >>> Sylvester(2).fast
        'push'
    """

    def make(rng: np.random.Generator) -> Layer:
        options: dict[str, Any] = {"activation": activation, "seed": rng}
        return SylvesterLayer(features, context, units, hidden, **options)

    return Flow(stacked(make, transforms, seed), support)


def NAF(
    features: int,
    context: int = 0,
    *,
    transforms: int = 2,
    hidden: Sequence[int] = (64, 64),
    units: int = 8,
    integral: bool = False,
    order: str = "random",
    activation: str = "relu",
    support: Any = None,
    seed: int = 0,
) -> Flow:
    r"""Return a neural autoregressive flow: monotone networks, given the features before.

    Args:
        features: number of features.
        context: number of context features.
        transforms: number of layers.
        hidden: units of each hidden layer.
        units: hidden units of each monotone network.
        integral: whether it is the integral of a positive network, unconstrained, rather than a
            mixture of sigmoids on the logit scale.
        order: the order in which layers see the features, from that of their numbers next to the
            data on: "random" draws another one (by `seed`) for each, "reverse" turns it round.
        activation: "relu", "tanh", "silu", "elu" or "softplus".
        support: constraint of the values.
        seed: seed of the initial weights.

    Cost:
        One pass of each network for densities; draws take D steps with a numerical inverse in each.

    References:
        Huang, Krueger, Lacoste, Courville: Neural autoregressive flows. ICML 2018.
        https://arxiv.org/abs/1804.00779

        Wehenkel, Louppe: Unconstrained monotonic neural networks. NeurIPS 2019.
        https://arxiv.org/abs/1908.05164

    Example:
        >>> NAF(2).fast
        'pull'
    """
    kind = Integral(units) if integral else Sigmoids(units)
    sizes = features, context, hidden, transforms, order, seed
    return Flow(autoregressive_layers(kind, *sizes, activation=activation), support)


def FFJORD(
    features: int,
    context: int = 0,
    *,
    transforms: int = 1,
    hidden: Sequence[int] = (64, 64),
    num_steps: int = 16,
    trace: str = "exact",
    activation: str = "tanh",
    support: Any = None,
    seed: int = 0,
) -> Flow:
    r"""Return a continuous flow: points move along a learned vector field.

    Args:
        features: number of features.
        context: number of context features.
        transforms: number of layers.
        hidden: units of each hidden layer.
        num_steps: steps of the solver for each layer.
        trace: "exact" or "hutchinson", as of `Continuous`.
        activation: a smooth one: "tanh", "silu", "elu" or "softplus".
        support: constraint of the values.
        seed: seed of the initial weights.

    Cost:
        Four passes of the network for each step in both directions, with D derivatives each for the
        exact trace.

    References:
        Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud: FFJORD, free-form continuous dynamics for
        scalable reversible generative models. ICLR 2019. https://arxiv.org/abs/1810.01367

    Example:
        >>> FFJORD(2).fast
        'both'
    """

    def make(rng: np.random.Generator) -> Layer:
        options: dict[str, Any] = {"activation": activation, "seed": rng}
        options |= {"num_steps": num_steps, "trace": trace}
        return Continuous(features, context, hidden, **options)

    return Flow(stacked(make, transforms, seed), support)


def Glow(
    shape: tuple[int, int, int],
    context: int = 0,
    *,
    scales: int = 2,
    steps: int = 4,
    channels: int = 64,
    levels: float | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> Flow:
    """Return Glow, a flow of images: at several scales, ActNorm, 1x1 convolutions and couplings.

    `dg.flows.initialised` begins ActNorm from a batch, which training is quicker with.

    Args:
        shape: height, width and channels, channels last.
        context: number of context features.
        scales: number of scales; height and width are halved at each.
        steps: steps at each scale.
        channels: hidden channels of the convolutional networks.
        levels: data lie in (0, levels), as dequantised pixels do; None for real data.
        alpha: keeps the borders of such data finite, see `Logit`.
        seed: seed of the initial weights.

    Raises:
        ValueError: height or width cannot be halved so often.

    Cost:
        One pass of each network in both directions.

    References:
        Kingma, Dhariwal: Glow, generative flow with invertible 1x1 convolutions. NeurIPS 2018.
        https://arxiv.org/abs/1807.03039

    Example:
        >>> Glow((8, 8, 1), steps=1, channels=8).fast
        'both'
    """
    sizes = (flow_checks.whole("scales", scales), flow_checks.whole("steps", steps), channels)
    flow_checks.sizes(shape[-1], context, (channels,))
    layer = multi_scale(shape, *sizes, context, np.random.default_rng(seed))
    return Flow(layer if levels is None else Chain((layer, Logit(tuple(shape), levels, alpha))))
