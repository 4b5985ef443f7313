"""The fully visible sigmoid belief network: logistic conditionals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl import autoregressive_weights
from deepgen_ppl.numpyro.programs.autoregressive.module import (
    Autoregressive,
    Context,
    Features,
    Inputs,
    arrays,
    as_output,
)
from deepgen_ppl.numpyro.programs.autoregressive.outputs import Output


class FVSBN(Autoregressive):
    r"""Conditionals that are linear in the features before: a logistic regression each, of bits.

    \[ \theta_d = b_d + c\, C_d + \sum_{e < d} x_e W_{ed} \]

    Args:
        features: number of features D, or the shape of an event, read row by row.
        output: the family of each conditional; bits when None.
        context: number of context features.
        order: which feature comes when, a permutation; the order they stand in when None.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: sizes that are no whole numbers, or an order that is no permutation.
        TypeError: an output that is none.

    Cost:
        D^2 products for a density and for a draw.

    References:
        Frey, Hinton, Dayan: Does the wake-sleep algorithm produce good density estimators?
        NeurIPS 1995.

    Example:
        >>> FVSBN(3)().log_prob(jnp.array([1, 0, 1])).shape
        ()
    """

    weights: dict[str, Array]
    output: Output = eqx.field(static=True)
    about: checks.About = eqx.field(static=True)

    def __init__(
        self,
        features: Features,
        output: Output | None = None,
        context: int = 0,
        *,
        order: Sequence[int] | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        self.about, self.output = checks.about(features, order, context), as_output(output)
        sizes = self.about.features, self.output.inputs, self.output.size
        self.weights = arrays(autoregressive_weights.logistic(seed, *sizes, context))

    @property
    def _masked(self) -> Float[Array, "features inputs features size"]:
        number = self.about.features
        before = np.triu(np.ones((number, number)), 1)[:, None, :, None]
        return self.weights["weight"] * before.astype(self.weights["weight"].dtype)

    def _bias(self, context: Context) -> Array:
        if context is None:
            return self.weights["bias"]
        return self.weights["bias"] + jnp.tensordot(context, self.weights["context"], 1)

    def parallel(self, inputs: Inputs, context: Context) -> Float[Array, "rows features size"]:
        """Return the parameters of all conditionals, by one product."""
        return jnp.tensordot(inputs, self._masked, 2) + self._bias(context)

    def start(self, rows: int, context: Context) -> Any:
        """Return the inputs so far, the weights and the biases."""
        bias = self._bias(context)
        inputs = jnp.zeros((rows, *self.weights["weight"].shape[:2]), bias.dtype)
        return inputs, jnp.broadcast_to(bias, (rows, *bias.shape[-2:]))

    def step(self, kept: Any, i: Array, before: Float[Array, "rows inputs"]) -> Any:
        """Return the parameters of feature i, by a product with the inputs so far."""
        inputs, bias = kept
        column = lax.dynamic_index_in_dim(self._masked, i, 2, False)
        place = jnp.maximum(i - 1, 0)
        inputs = lax.dynamic_update_slice_in_dim(inputs, before[:, None], place, 1)
        found = jnp.tensordot(inputs, column, 2) + lax.dynamic_index_in_dim(bias, i, 1, False)
        return found, (inputs, bias)
