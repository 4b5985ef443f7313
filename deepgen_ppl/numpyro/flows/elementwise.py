"""The elementwise layer: each feature has a monotone map of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deepgen_ppl import flow_checks
from deepgen_ppl.numpyro.flows.given import Given
from deepgen_ppl.numpyro.flows.layer import About, Context, Layer, Pushed
from deepgen_ppl.numpyro.flows.spline import Spline


class Elementwise(Layer):
    r"""Each feature is moved by a monotone map of its own, \( x_i = g(z_i;\ \theta_i(c)) \).

    Args:
        features: number of features.
        context: number of context features.
        univariate: the map g: `Spline`, `Affine`, `Additive`, `Sigmoids` or `Integral`.
        hidden: units of each hidden layer of the context's network.
        activation: of the context's network.
        seed: seed of the network's weights, or a NumPy generator.

    Raises:
        ValueError: sizes that are no whole numbers.

    References:
        Durkan, Bekasov, Murray, Papamakarios: Neural spline flows. NeurIPS 2019.
        https://arxiv.org/abs/1906.04032

    Example:
        >>> Elementwise(2)()(jnp.array([0.5, -1.0])).tolist()
        [0.5, -1.0]
    """

    given: Given
    univariate: Any = eqx.field(static=True)
    about: About = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        context: int = 0,
        univariate: Any = None,
        hidden: Sequence[int] = (64, 64),
        *,
        activation: str = "relu",
        seed: int | np.random.Generator = 0,
    ) -> None:
        flow_checks.sizes(features, context, hidden)
        self.univariate = Spline() if univariate is None else univariate
        start = np.zeros(self.univariate.size * features)
        self.given = Given(start, context, hidden, activation=activation, seed=seed)
        numerical = getattr(self.univariate, "max_steps", None) is not None
        self.about = About((features,), context, "push" if numerical else "both", numerical)

    def _params(self, context: Context) -> Array:
        params = self.given(context)
        return params.reshape(*params.shape[:-1], self.univariate.size, -1)

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        params = self._params(context)
        params = jnp.broadcast_to(params, (*z.shape[:-1], *params.shape[-2:]))
        x, log_slope = self.univariate.push(z, params)
        return x, log_slope.sum(-1)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        params = self._params(context)
        params = jnp.broadcast_to(params, (*x.shape[:-1], *params.shape[-2:]))
        z, log_slope = self.univariate.pull(x, params)
        return z, log_slope.sum(-1)
