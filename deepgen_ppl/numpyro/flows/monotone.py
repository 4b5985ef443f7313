"""Monotone networks of one input, whose parameters a network gives: neural autoregressive flows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deepgen_ppl import flow_checks
from deepgen_ppl.numpyro.flows.root import bracket, invert

_ONE = math.log(math.expm1(1.0))  # softplus of it is one
_LEAST = 1e-3


def soft_clamp(value: Array, bound: float) -> Array:
    r"""Return \(v / (1 + |v| / b)\), between -b and b, which is v to first order at zero."""
    return value / (1.0 + jnp.abs(value) / bound)


@dataclass(frozen=True)
class Sigmoids:
    r"""A mixture of sigmoids on the logit scale, a universal monotone function.

    \[ y = \operatorname{logit} \textstyle\sum_k w_k\, \sigma(a_k x + b_k), \qquad a_k > 0 \]

    Weights are a softmax, log slopes \(\log a_k\) are clamped softly to \(\pm 3\), and offsets
    \(b_k\) begin spread over (-1, 1), so that the units differ: it begins near the identity.

    Args:
        units: number of sigmoids.
        max_steps: most steps of the numerical inverse.
        tolerance: of the numerical inverse; that of the numbers' precision when None.

    Raises:
        ValueError: sizes that are no positive whole numbers.

    References:
        Huang, Krueger, Lacoste, Courville: Neural autoregressive flows. ICML 2018.
        https://arxiv.org/abs/1804.00779

    Example:
        >>> y, _ = Sigmoids(4).push(jnp.array([0.5]), jnp.zeros((12, 1)))
        >>> Sigmoids(4).pull(y, jnp.zeros((12, 1)))[0].round(4).tolist()
        [0.5]
    """

    units: int = 8
    max_steps: int = 100
    tolerance: float | None = None

    def __post_init__(self) -> None:
        flow_checks.whole("units", self.units)
        flow_checks.whole("max_steps", self.max_steps)

    @property
    def size(self) -> int:
        """Parameters of each feature: weights, log slopes and offsets."""
        return 3 * self.units

    def push(
        self, x: Float[Array, "*batch D"], params: Float[Array, "*batch P D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """Map x to y, with the log derivative."""
        weights, slopes, offsets = (
            params[..., i * self.units : (i + 1) * self.units, :] for i in range(3)
        )
        log_weights = jax.nn.log_softmax(weights, axis=-2)
        log_slopes = soft_clamp(slopes, 3.0)
        spread = np.linspace(-1.0, 1.0, self.units + 2)[1:-1, None]
        at = jnp.exp(log_slopes) * x[..., None, :] + offsets + jnp.asarray(spread, x.dtype)
        up, down = jax.nn.log_sigmoid(at), jax.nn.log_sigmoid(-at)
        log_up = jax.nn.logsumexp(log_weights + up, axis=-2)
        log_down = jax.nn.logsumexp(log_weights + down, axis=-2)
        log_density = jax.nn.logsumexp(log_weights + up + down + log_slopes, axis=-2)
        return log_up - log_down, log_density - log_up - log_down

    def pull(
        self, y: Float[Array, "*batch D"], params: Float[Array, "*batch P D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """Map y to x, with the log derivative of that map."""
        return pulled(self, y, params)


@dataclass(frozen=True)
class Integral:
    r"""The integral of a positive network, an unconstrained monotone function.

    \[ y = t + \int_0^x \big(\epsilon + (1 - \epsilon)\,\mathrm{softplus}(c + \textstyle\sum_k v_k
       \tanh(w_k s + b_k))\big)\,ds \]

    by Gauss-Legendre quadrature. Zero parameters give the identity, and slopes are at least
    \(\epsilon = 0.001\). The log derivative is that of the integral, which the quadrature follows
    closely where the integrand is smooth: standardise the data.

    Args:
        units: hidden units of the integrand.
        nodes: points of the quadrature.
        max_steps: most steps of the numerical inverse.
        tolerance: of the numerical inverse; that of the numbers' precision when None.

    Raises:
        ValueError: sizes that are no positive whole numbers.

    References:
        Wehenkel, Louppe: Unconstrained monotonic neural networks. NeurIPS 2019.
        https://arxiv.org/abs/1908.05164

    Example:
        >>> Integral(4).push(jnp.array([0.5]), jnp.zeros((14, 1)))[0].round(4).tolist()
        [0.5]
    """

    units: int = 8
    nodes: int = 24
    max_steps: int = 100
    tolerance: float | None = None

    def __post_init__(self) -> None:
        flow_checks.whole("units", self.units)
        flow_checks.whole("nodes", self.nodes)
        flow_checks.whole("max_steps", self.max_steps)

    @property
    def size(self) -> int:
        """Parameters of each feature: three for each unit, the level and the shift."""
        return 3 * self.units + 2

    def _integrand(self, s: Array, params: Array) -> Array:
        w, b, v = (params[..., i * self.units : (i + 1) * self.units, :] for i in range(3))
        spread = jnp.asarray(np.linspace(-2.0, 2.0, self.units)[:, None], s.dtype)
        inside = jnp.sum(v * jnp.tanh((1.0 + w) * s[..., None, :] + b + spread), axis=-2)
        level = params[..., 3 * self.units, :]
        return _LEAST + (1.0 - _LEAST) * jax.nn.softplus(level + inside + _ONE)

    def push(
        self, x: Float[Array, "*batch D"], params: Float[Array, "*batch P D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """Map x to y, with the log derivative."""
        nodes, weights = np.polynomial.legendre.leggauss(self.nodes)
        shape = (self.nodes,) + (1,) * x.ndim
        at = jnp.asarray((nodes + 1.0) / 2.0, x.dtype).reshape(shape) * x
        values = self._integrand(at, params)
        total = jnp.sum(jnp.asarray(weights / 2.0, x.dtype).reshape(shape) * values, axis=0)
        return params[..., -1, :] + x * total, jnp.log(self._integrand(x, params))

    def pull(
        self, y: Float[Array, "*batch D"], params: Float[Array, "*batch P D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """Map y to x, with the log derivative of that map."""
        return pulled(self, y, params)


def pulled(univariate: Sigmoids | Integral, y: Array, params: Array) -> tuple[Array, Array]:
    """Return the numerical inverse of a monotone function, with its log derivative."""

    def f(x: Array) -> tuple[Array, Array]:
        return univariate.push(x, params)

    x = invert(f, y, *bracket(f, y), univariate.max_steps, univariate.tolerance)
    return x, -f(x)[1]
