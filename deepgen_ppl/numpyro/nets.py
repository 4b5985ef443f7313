"""Networks: multi-layer perceptrons, plain and masked to be autoregressive."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deepgen_ppl import flow_checks, networks, wrapping

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
}


class MLP(eqx.Module):
    r"""A multi-layer perceptron on batches of any shape, with an optional context.

    \[ h_1 = a(x W_1 + c W_c + b_1), \quad h_l = a(h_{l-1} W_l + b_l), \quad y = h_L W + b \]

    The context enters by its own product, so that one context serves many inputs at its own cost.

    Args:
        inputs: number of inputs; 0 lets the output depend on the context only.
        outputs: number of outputs.
        hidden: units of each hidden layer.
        context: number of context features.
        activation: "relu", "tanh", "silu", "elu", "softplus" or "sigmoid".
        zero: whether the last layer is zero at first.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: a size is no whole number, or the activation is unknown.

    Example:
        >>> net = MLP(3, 2, (16,), context=1)
        >>> net(jnp.ones((5, 3)), jnp.ones(1)).shape
        (5, 2)
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    from_context: Array | None
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        *,
        activation: str = "relu",
        zero: bool = False,
        seed: int | np.random.Generator = 0,
    ) -> None:
        flow_checks.sizes(outputs, context, hidden)
        flow_checks.choice("activation", activation, flow_checks.ACTIVATIONS)
        rng = np.random.default_rng(seed)
        drawn = networks.initial_weights(rng, inputs, outputs, hidden, context, zero)
        self.weights = tuple(jnp.asarray(w, float) for w in drawn.weights)
        self.biases = tuple(jnp.asarray(b, float) for b in drawn.biases)
        found = drawn.from_context
        self.from_context = None if found is None else jnp.asarray(found, float)
        self.activation = activation

    def __call__(
        self,
        x: Float[Array, "*batch inputs"],
        context: Float[Array, "*#batch context"] | None = None,
    ) -> Float[Array, "*batch outputs"]:
        """Return the outputs at inputs and context."""
        return forward(self, self.weights, x, context)


class MaskedMLP(eqx.Module):
    r"""An autoregressive network: output i of each group of outputs sees inputs before i only.

    The units of each hidden layer are sorted by what they see, and outputs have the shape
    (outputs, features). The context reaches every unit.

    Args:
        features: number of inputs D.
        outputs: outputs of each feature.
        hidden: units of each hidden layer.
        context: number of context features.
        activation: as of `MLP`.
        inputs: numbers that each feature is given by, side by side.
        order: the features in the order in which each sees those before it; that of their numbers
            when None.
        zero: whether the last layer is zero at first.
        seed: seed of the initial weights, or a NumPy generator.

    References:
        Germain, Gregor, Murray, Larochelle: MADE, masked autoencoder for distribution estimation.
        ICML 2015. https://arxiv.org/abs/1502.03509

    Example:
        >>> net = MaskedMLP(3, 2, (16,))
        >>> net(jnp.ones((5, 3)), None).shape
        (5, 2, 3)
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    from_context: Array | None
    order: np.ndarray | None
    features: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    context: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    inputs: int = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        outputs: int,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        *,
        activation: str = "relu",
        inputs: int = 1,
        order: Sequence[int] | np.ndarray | None = None,
        zero: bool = True,
        seed: int | np.random.Generator = 0,
    ) -> None:
        flow_checks.sizes(features, context, hidden)
        flow_checks.choice("activation", activation, flow_checks.ACTIVATIONS)
        rng = np.random.default_rng(seed)
        sizes = features * inputs, features * outputs, hidden, context
        drawn = networks.initial_weights(rng, *sizes, zero)
        self.weights = tuple(jnp.asarray(w, float) for w in drawn.weights)
        self.biases = tuple(jnp.asarray(b, float) for b in drawn.biases)
        found = drawn.from_context
        self.from_context = None if found is None else jnp.asarray(found, float)
        self.features, self.outputs, self.hidden = features, outputs, tuple(hidden)
        self.context, self.activation, self.inputs = context, activation, inputs
        self.order = None if order is None else flow_checks.order_of(order, features)

    @property
    def masked(self) -> tuple[Array, ...]:
        """The weights of each layer, those that see too much set to zero."""
        sizes = self.features, self.hidden, self.outputs, self.context, self.inputs
        masks = networks.masks(*sizes, self.order)
        return tuple(w * m.astype(w.dtype) for w, m in zip(self.weights, masks, strict=True))

    def __call__(
        self, x: Float[Array, "*batch inputs"], context: Float[Array, "*#batch context"] | None
    ) -> Float[Array, "*batch outputs features"]:
        """Return the outputs of each feature."""
        y = forward(self, self.masked, x, context)
        return y.reshape(*y.shape[:-1], self.outputs, self.features)


def forward(
    net: MLP | MaskedMLP, weights: Sequence[Array], x: Array, context: Array | None
) -> Array:
    """Return the outputs of a network with these weights."""
    activation = ACTIVATIONS[net.activation]
    h = _product(x, weights[0]) + net.biases[0]
    if net.from_context is not None and context is not None:
        h = h + context @ net.from_context
    for weight, bias in zip(weights[1:], net.biases[1:], strict=True):
        h = _product(activation(h), weight) + bias
    return h


def _product(h: Array, weight: Array) -> Array:
    """Return the product with a weight.

    The gradient of a weight is the product of two arrays of all rows, one of them transposed, and
    XLA copies that one on processors. Of a weight of few outputs it is better the narrow one.
    """
    if 4 * weight.shape[-1] > weight.shape[-2]:
        return h @ weight
    return h @ lax.optimization_barrier(weight.T).T


def check_registered(name: str, net: Any) -> None:
    """Refuse a function around a module, whose parameters would not be learned."""
    nnx = sys.modules.get("flax.nnx")
    kinds = (eqx.Module,) if nnx is None else (eqx.Module, nnx.Module)
    cure = "Pass the module, or equinox.filter_vmap(module) where it takes one datum at a time."
    wrapping.check_registered(name, net, kinds, cure)


def on_batch(net: Any, value: Array, *rest: Any) -> Any:
    """Apply a user's network to a batch, with advice where it is one for a single datum."""
    try:
        return net(value, *rest)
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError) or not isinstance(net, eqx.Module):
            raise
        raise type(error)(
            f"{error} The {type(net).__name__} was given a batch of shape {jnp.shape(value)}: pass "
            "a module for one datum, as those of equinox.nn are, as equinox.filter_vmap(module)."
        ) from error
