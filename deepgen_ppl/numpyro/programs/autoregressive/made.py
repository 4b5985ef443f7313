"""MADE: one masked network that gives all conditionals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl import networks
from deepgen_ppl.numpyro.nets import ACTIVATIONS, MaskedMLP
from deepgen_ppl.numpyro.programs.autoregressive.module import (
    Autoregressive,
    Context,
    Features,
    Inputs,
    as_output,
)
from deepgen_ppl.numpyro.programs.autoregressive.outputs import Output


class MADE(Autoregressive):
    r"""The masked autoencoder: a network whose output d sees the features before d only.

    The masks follow the order. Hidden units are sorted by what they see, so that a draw visits each
    of them once, at the feature that completes it.

    Args:
        features: number of features D, or the shape of an event, read row by row.
        output: the family of each conditional; bits when None.
        hidden: units of each hidden layer.
        context: number of context features, which every unit sees.
        activation: "relu", "tanh", "silu", "elu", "softplus" or "sigmoid".
        order: which feature comes when, a permutation; the order they stand in when None.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: sizes that are no whole numbers, an unknown activation, or an order that is no
            permutation.
        TypeError: an output that is none.

    Cost:
        One pass of the network for a density; D short steps for a draw, whose products are those of
        about one pass together.

    References:
        Germain, Gregor, Murray, Larochelle: MADE, masked autoencoder for distribution estimation.
        ICML 2015. https://arxiv.org/abs/1502.03509

    Example:
        >>> MADE(3, hidden=(16,))().log_prob(jnp.array([1, 0, 1])).shape
        ()
    """

    net: MaskedMLP
    output: Output = eqx.field(static=True)
    about: checks.About = eqx.field(static=True)

    def __init__(
        self,
        features: Features,
        output: Output | None = None,
        hidden: Sequence[int] = (500,),
        context: int = 0,
        *,
        activation: str = "relu",
        order: Sequence[int] | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        self.about, self.output = checks.about(features, order, context), as_output(output)
        options: dict[str, Any] = {"activation": activation, "seed": seed}
        options["inputs"] = self.output.inputs
        self.net = MaskedMLP(self.about.features, self.output.size, hidden, context, **options)

    @property
    def weights(self) -> dict[str, Array]:
        """The masked weights and the biases of the network, by layer."""
        found = {f"weight_{i}": w for i, w in enumerate(self.net.masked)}
        return found | {f"bias_{i}": b for i, b in enumerate(self.net.biases)}

    def parallel(self, inputs: Inputs, context: Context) -> Float[Array, "rows features size"]:
        """Return the parameters of all conditionals, by one pass."""
        return self.net(inputs.reshape(len(inputs), -1), context).swapaxes(1, 2)

    def start(self, rows: int, context: Context) -> Any:
        """Return inputs and hidden units so far, and what the context adds."""
        dtype, sizes = self.net.biases[0].dtype, (self.net.weights[0].shape[0], *self.net.hidden)
        add = jnp.zeros((rows, 0), dtype)
        if self.net.from_context is not None and context is not None:
            add = context @ self.net.from_context
        return tuple(jnp.zeros((rows, size), dtype) for size in sizes), add

    def step(self, kept: Any, i: Array, before: Float[Array, "rows inputs"]) -> Any:
        """Return the parameters of feature i, from the units that the feature before completes."""
        net, (seen, add) = self.net, kept
        act, weights = ACTIVATIONS[net.activation], net.masked
        groups = networks.groups(net.features, net.hidden, net.context)
        place = jnp.maximum(i - 1, 0) * self.output.inputs
        units = [lax.dynamic_update_slice_in_dim(seen[0], before, place, 1)]
        for layer, (old, group) in enumerate(zip(seen[1:], groups, strict=True)):
            width = int(np.bincount(group, minlength=net.features).max())
            begin = jnp.asarray(np.searchsorted(group, np.arange(net.features)))[i]
            begin = jnp.minimum(begin, old.shape[1] - width)  # units too early are computed again
            part = units[-1] @ lax.dynamic_slice_in_dim(weights[layer], begin, width, 1)
            part = part + lax.dynamic_slice_in_dim(net.biases[layer], begin, width)
            if layer == 0 and add.shape[1]:
                part = part + lax.dynamic_slice_in_dim(add, begin, width, 1)
            units.append(lax.dynamic_update_slice_in_dim(old, act(part), begin, 1))
        shape = (-1, net.outputs, net.features)
        out = lax.dynamic_index_in_dim(weights[-1].reshape(shape), i, 2, False)
        found = units[-1] @ out
        found = found + lax.dynamic_index_in_dim(net.biases[-1].reshape(shape[1:]), i, 1, False)
        if not net.hidden and add.shape[1]:
            found = found + lax.dynamic_index_in_dim(add.reshape(shape), i, 2, False)
        return found, (tuple(units), add)
