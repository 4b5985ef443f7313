"""NADE: one hidden layer that all conditionals share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl import autoregressive_weights, flow_checks
from deepgen_ppl.numpyro.nets import ACTIVATIONS
from deepgen_ppl.numpyro.programs.autoregressive.module import (
    Autoregressive,
    Context,
    Features,
    Inputs,
    arrays,
    as_output,
)
from deepgen_ppl.numpyro.programs.autoregressive.outputs import Output


class NADE(Autoregressive):
    r"""The neural autoregressive distribution estimator.

    \[ h_d = a\Big(b + c\, C + \sum_{e < d} x_e W_e\Big), \qquad \theta_d = b_d + h_d V_d \]

    The sum grows by one term a feature, so that all hidden layers together cost no more than one
    layer of each feature does: a density and a draw are linear in D.

    Args:
        features: number of features D, or the shape of an event, read row by row.
        output: the family of each conditional; bits when None.
        units: hidden units H.
        context: number of context features.
        activation: "sigmoid", "relu", "tanh", "silu", "elu" or "softplus".
        order: which feature comes when, a permutation; the order they stand in when None.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: sizes that are no whole numbers, an unknown activation, or an order that is no
            permutation.
        TypeError: an output that is none.

    Cost:
        D H products for a density and for a draw. Densities take about 32 inputs at once, by a
        triangular product, and compute each block again for the gradient.

    References:
        Larochelle, Murray: The neural autoregressive distribution estimator. AISTATS 2011.

        Uria, Côté, Gregor, Murray, Larochelle: Neural autoregressive distribution estimation. JMLR
        17, 2016. https://arxiv.org/abs/1605.02226

    Example:
        >>> NADE(3, units=8)().log_prob(jnp.array([1, 0, 1])).shape
        ()
    """

    weights: dict[str, Array]
    output: Output = eqx.field(static=True)
    about: checks.About = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        features: Features,
        output: Output | None = None,
        units: int = 500,
        context: int = 0,
        *,
        activation: str = "sigmoid",
        order: Sequence[int] | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        flow_checks.whole("units", units)
        self.activation = flow_checks.choice("activation", activation, flow_checks.ACTIVATIONS)
        self.about, self.output = checks.about(features, order, context), as_output(output)
        sizes = self.about.features, self.output.inputs, self.output.size
        self.weights = arrays(autoregressive_weights.nade(seed, *sizes, units, context))

    def _sum(self, rows: int, context: Context) -> Float[Array, "rows units"]:
        hidden = self.weights["hidden"]
        if context is not None:
            hidden = hidden + context @ self.weights["context"]
        return jnp.broadcast_to(hidden, (rows, hidden.shape[-1]))

    def parallel(self, inputs: Inputs, context: Context) -> Float[Array, "rows features size"]:
        """Return the parameters of all conditionals, block by block of features."""
        rows, features, size = inputs.shape
        block = autoregressive_weights.block_size(features, size)
        number = -(-features // block)
        act, extra = ACTIVATIONS[self.activation], number * block - features
        before = np.tril(np.ones((block, block)), -1)[None, :, :, None]
        before = jnp.asarray(before, inputs.dtype)

        def blocks(a: Array) -> Array:
            a = jnp.pad(a, ((0, extra), *[(0, 0)] * (a.ndim - 1)))
            return a.reshape(number, block, *a.shape[1:])

        @jax.checkpoint
        def step(total: Array, parts: Any) -> tuple[Array, Array]:
            x, weight, out = parts  # (block, rows, size), (block, size, units), (block, units, P)
            x, weight = x.swapaxes(0, 1), weight.reshape(block * size, -1)
            seen = (x[:, None] * before).reshape(rows * block, block * size) @ weight
            hidden = act(total[:, None] + seen.reshape(rows, block, -1))
            total = total + x.reshape(rows, -1) @ weight
            return total, jnp.einsum("rdh,dhp->rdp", hidden, out)

        w = self.weights
        parts = blocks(inputs.swapaxes(0, 1)), blocks(w["weight"]), blocks(w["out"])
        _, found = lax.scan(step, self._sum(rows, context), parts)
        found = found.swapaxes(0, 1).reshape(rows, number * block, -1)
        return found[:, :features] + w["bias"]

    def start(self, rows: int, context: Context) -> Any:
        """Return the sum before any feature."""
        return self._sum(rows, context)

    def step(self, kept: Any, i: Array, before: Float[Array, "rows inputs"]) -> Any:
        """Return the parameters of feature i, and the sum with the feature before it."""
        w, act = self.weights, ACTIVATIONS[self.activation]
        kept = kept + before @ lax.dynamic_index_in_dim(
            w["weight"], jnp.maximum(i - 1, 0), 0, False
        )
        out, bias = (lax.dynamic_index_in_dim(w[name], i, 0, False) for name in ("out", "bias"))
        return act(kept) @ out + bias, kept
