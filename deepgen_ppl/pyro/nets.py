"""Networks: multi-layer perceptrons, plain and masked to be autoregressive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepgen_ppl import flow_checks, networks, wrapping

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "elu": functional.elu,
    "softplus": functional.softplus,
    "sigmoid": torch.sigmoid,
}
# in place on what a product has just made, since fresh memory costs more than the arithmetic
_ON_PRODUCTS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_}


def as_parameter(value: np.ndarray) -> nn.Parameter:
    """Return an array as a parameter of torch's default dtype."""
    return nn.Parameter(torch.tensor(value, dtype=torch.get_default_dtype()))


class MLP(nn.Module):
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
        >>> net(torch.ones(5, 3), torch.ones(1)).shape
        torch.Size([5, 2])
    """

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
        super().__init__()
        flow_checks.sizes(outputs, context, hidden)
        flow_checks.choice("activation", activation, flow_checks.ACTIVATIONS)
        rng = np.random.default_rng(seed)
        drawn = networks.initial_weights(rng, inputs, outputs, hidden, context, zero)
        self.weights = nn.ParameterList(map(as_parameter, drawn.weights))
        self.biases = nn.ParameterList(map(as_parameter, drawn.biases))
        found = drawn.from_context
        self.from_context = None if found is None else as_parameter(found)
        self.activation = activation

    def forward(
        self,
        x: Float[Tensor, "*batch inputs"],
        context: Float[Tensor, "*#batch context"] | None = None,
    ) -> Float[Tensor, "*batch outputs"]:
        """Return the outputs at inputs and context."""
        return forward(self, self.weights, x, context)


class MaskedMLP(nn.Module):
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
        >>> net(torch.ones(5, 3), None).shape
        torch.Size([5, 2, 3])
    """

    order: Tensor | None

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
        super().__init__()
        flow_checks.sizes(features, context, hidden)
        flow_checks.choice("activation", activation, flow_checks.ACTIVATIONS)
        rng = np.random.default_rng(seed)
        sizes = features * inputs, features * outputs, hidden, context
        drawn = networks.initial_weights(rng, *sizes, zero)
        self.weights = nn.ParameterList(map(as_parameter, drawn.weights))
        self.biases = nn.ParameterList(map(as_parameter, drawn.biases))
        found = drawn.from_context
        self.from_context = None if found is None else as_parameter(found)
        self.features, self.outputs, self.hidden = features, outputs, tuple(hidden)
        self.context, self.activation, self.inputs = context, activation, inputs
        order = None if order is None else flow_checks.order_of(order, features)
        self.register_buffer("order", None if order is None else torch.as_tensor(order))
        masks = networks.masks(features, hidden, outputs, context, inputs, order)
        dtype = torch.get_default_dtype()  # a product with bits would convert them each time
        for number, mask in enumerate(masks):
            buffer = torch.tensor(mask, dtype=dtype)
            self.register_buffer(f"mask_{number}", buffer, persistent=order is not None)

    @property
    def masked(self) -> tuple[Tensor, ...]:
        """The weights of each layer, those that see too much set to zero."""
        return tuple(w * getattr(self, f"mask_{i}") for i, w in enumerate(self.weights))

    def forward(
        self, x: Float[Tensor, "*batch inputs"], context: Float[Tensor, "*#batch context"] | None
    ) -> Float[Tensor, "*batch outputs features"]:
        """Return the outputs of each feature."""
        y = forward(self, self.masked, x, context)
        return y.reshape(*y.shape[:-1], self.outputs, self.features)


def forward(
    net: MLP | MaskedMLP,
    weights: Sequence[Tensor] | nn.ParameterList,
    x: Tensor,
    context: Tensor | None,
) -> Tensor:
    """Return the outputs of a network with these weights."""
    activation = _ON_PRODUCTS.get(net.activation, ACTIVATIONS[net.activation])
    weights, biases = list(weights), list(net.biases)
    h = functional.linear(x, weights[0].mT, biases[0])
    if net.from_context is not None and context is not None:
        h = h + context @ net.from_context
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        h = activation(h)
        h = functional.linear(h, weight.mT, bias)
    return h


def check_registered(name: str, net: Any) -> None:
    """Refuse a function around a module, whose parameters would not be learned."""
    cure = "Pass the module, or one whose forward does what the function does."
    wrapping.check_registered(name, net, nn.Module, cure)
