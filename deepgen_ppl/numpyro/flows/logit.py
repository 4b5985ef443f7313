"""The logit layer: data in a box to the real numbers, with its Jacobian."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from deepgen_ppl import flow_checks
from deepgen_ppl.numpyro.flows.layer import About, Context, Layer, Pushed


class Logit(Layer):
    r"""Values of (0, levels) from real ones, as pixels with noise have them.

    \[ x = n\,\frac{\sigma(z) - \alpha}{1 - 2\alpha}, \qquad
       z = \operatorname{logit}\big(\alpha + (1 - 2\alpha)\,x / n\big) \]

    \(\alpha\) keeps the borders finite; both directions count the Jacobian.

    Args:
        shape: number of features, or the shape of an event.
        levels: n, the number of levels: 256 for bytes, 1 for data in the unit cube.
        alpha: \(\alpha\), 0 or more and below one half.

    Raises:
        ValueError: the sizes are no positive numbers; at a call, rows outside of the box.

    References:
        Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP. ICLR 2017.
        https://arxiv.org/abs/1605.08803

    Example:
        >>> Logit(2, levels=16)().inv(jnp.array([8.0, 8.0])).tolist()
        [0.0, 0.0]
    """

    levels: float = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    about: About = eqx.field(static=True)

    def __init__(
        self, shape: int | tuple[int, ...], levels: float = 1.0, alpha: float = 0.05
    ) -> None:
        self.levels = flow_checks.positive("levels", levels)
        if not 0 <= alpha < 0.5:
            raise ValueError(f"alpha must be at least 0 and below 0.5, got {alpha!r}.")
        self.alpha = float(alpha)
        self.about = About((shape,) if isinstance(shape, int) else tuple(shape))

    def _log_det(self, z: Array) -> Array:
        size = math.prod(self.event_shape)
        axes = tuple(range(z.ndim - len(self.event_shape), z.ndim))
        slopes = jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)
        return slopes.sum(axes) + size * math.log(self.levels / (1.0 - 2.0 * self.alpha))

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Map real values to the box, with the log determinant."""
        x = self.levels * (jax.nn.sigmoid(z) - self.alpha) / (1.0 - 2.0 * self.alpha)
        return x, self._log_det(z)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Map the box to real values, with the log determinant of that map."""
        inside = self.alpha + (1.0 - 2.0 * self.alpha) * x / self.levels
        axes = tuple(range(x.ndim - len(self.event_shape), x.ndim))
        if not isinstance(x, Tracer):
            within = np.asarray(((inside > 0) & (inside < 1)).all(axes))
            flow_checks.refuse_outside(within, f"(0, {self.levels:g})")
        z = jnp.log(inside) - jnp.log1p(-inside)
        return z, -self._log_det(z)
