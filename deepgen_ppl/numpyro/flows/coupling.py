"""The coupling layer: a network of one half of the features moves the other half, elementwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deepgen_ppl import flow_checks
from deepgen_ppl.numpyro.flows.affine import Affine
from deepgen_ppl.numpyro.flows.layer import About, Context, Layer, Pushed
from deepgen_ppl.numpyro.nets import MLP


class Coupling(Layer):
    r"""The first half of the features stays, and moves the second half.

    \[ x_a = z_a, \qquad x_b = g(z_b;\ \mathrm{net}(z_a, c)), \qquad
       \log|\det J| = \textstyle\sum \log g' \]

    or, along="pull", \(z_b = g(x_b;\ \mathrm{net}(x_a, c))\). Shifts are then not divided by
    scales on the way that densities of data take, which trains more steadily.

    Args:
        features: number of features, 2 or more.
        context: number of context features.
        univariate: the elementwise map g: `Affine`, `Additive` or `Spline`.
        hidden: units of each hidden layer of the network.
        along: the way of g itself, "push" (from base to data) or "pull" (from data to base).
        activation: "relu", "tanh", "silu", "elu" or "softplus".
        identity: whether the layer begins as the identity; otherwise the network's last layer is
            drawn as the others are.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: fewer than two features, sizes that are no whole numbers, or an unknown way.

    Cost:
        One pass of the network in both directions.

    References:
        Dinh, Krueger, Bengio: NICE. 2014. https://arxiv.org/abs/1410.8516

        Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP. ICLR 2017.
        https://arxiv.org/abs/1605.08803

    Example:
        >>> transform = Coupling(3)()
        >>> transform(jnp.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """

    net: MLP
    univariate: Any = eqx.field(static=True)
    about: About = eqx.field(static=True)
    along: str = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        context: int = 0,
        univariate: Any = None,
        hidden: Sequence[int] = (64, 64),
        *,
        along: str = "push",
        activation: str = "relu",
        identity: bool = True,
        seed: int | np.random.Generator = 0,
    ) -> None:
        flow_checks.sizes(features, context, hidden, 2, "A coupling")
        flow_checks.choice("along", along, ("push", "pull"))
        self.univariate = Affine() if univariate is None else univariate
        stay = features // 2
        outputs = self.univariate.size * (features - stay)
        options: dict[str, Any] = {"activation": activation, "zero": identity, "seed": seed}
        self.net = MLP(stay, outputs, hidden, context, **options)
        self.about, self.along = About((features,), context), along

    def _split(self, value: Array, context: Context) -> tuple[Array, Array, Array]:
        stay = self.event_shape[0] // 2
        params = self.net(value[..., :stay], context)
        params = params.reshape(*params.shape[:-1], self.univariate.size, -1)
        return value[..., :stay], value[..., stay:], params

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        stay, move, params = self._split(z, context)
        g = self.univariate
        moved, log_slope = (g.push if self.along == "push" else g.pull)(move, params)
        return jnp.concatenate([stay, moved], -1), log_slope.sum(-1)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        stay, move, params = self._split(x, context)
        g = self.univariate
        moved, log_slope = (g.pull if self.along == "push" else g.push)(move, params)
        return jnp.concatenate([stay, moved], -1), log_slope.sum(-1)
