"""Planar, radial and Sylvester layers: the identity and a narrow residual, inverted exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deepgen_ppl import flow_checks
from deepgen_ppl.numpyro.flows.given import Given
from deepgen_ppl.numpyro.flows.layer import About, Context, Layer, Pushed
from deepgen_ppl.numpyro.flows.linear import reflect
from deepgen_ppl.numpyro.flows.root import invert

_ONE = math.log(math.expm1(1.0))


def above_minus_one(value: Array) -> Array:
    r"""Return \(\mathrm{softplus}(v + \log(e - 1)) - 1\), above -1 and zero at zero."""
    return jax.nn.softplus(value + _ONE) - 1.0


def solve_tanh(y: Array, slope: Array) -> Array:
    r"""Return the a with \(a + c \tanh a = y\), for c above -1."""
    span = jnp.abs(slope) + 1e-3

    def f(a: Array) -> tuple[Array, Array]:
        t = jnp.tanh(a)
        return a + slope * t, jnp.log1p(slope * (1.0 - t**2))

    return invert(f, y, y - span, y + span)


class PlanarLayer(Layer):
    r"""Space is stretched along a vector, by the distance to a plane.

    \[ x = z + \hat u \tanh(w^\top z + b), \qquad
       \log|\det J| = \log\big(1 + w^\top \hat u\,(1 - \tanh^2(w^\top z + b))\big) \]

    \(\hat u\) is u moved along w so that \(w^\top \hat u > -1\), which makes it invertible. With
    \(a = w^\top z + b\), pulling solves the one-dimensional \(a + w^\top\hat u\tanh a = w^\top x
    + b\).

    Args:
        features: number of features.
        context: number of context features.
        hidden: units of each hidden layer of the context's network.
        activation: of the context's network.
        seed: seed of the weights, or a NumPy generator; the layer begins as the identity.

    Cost:
        A product to push; a scalar equation of some five steps more to pull.

    References:
        Rezende, Mohamed: Variational inference with normalizing flows. ICML 2015.
        https://arxiv.org/abs/1505.05770

    Example:
        >>> PlanarLayer(2)()(jnp.ones(2)).tolist()
        [1.0, 1.0]
    """

    given: Given
    about: About = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        *,
        activation: str = "relu",
        seed: int | np.random.Generator = 0,
    ) -> None:
        flow_checks.sizes(features, context, hidden)
        rng = np.random.default_rng(seed)
        start = np.zeros(2 * features + 1)
        start[:features] = rng.normal(size=features) / features**0.5
        self.given = Given(start, context, hidden, activation=activation, seed=rng)
        self.about = About((features,), context, "push", True)

    def _params(self, context: Context) -> tuple[Array, Array, Array, Array]:
        params, size = self.given(context), self.event_shape[0]
        w, u, b = params[..., :size], params[..., size:-1], params[..., -1]
        along = jnp.sum(w * u, -1)
        slope = above_minus_one(along)
        norm = jnp.sum(w**2, -1) + 1e-12
        return w, u + ((slope - along) / norm)[..., None] * w, b, slope

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        w, u, b, slope = self._params(context)
        t = jnp.tanh(jnp.sum(w * z, -1) + b)
        return z + u * t[..., None], jnp.log1p(slope * (1.0 - t**2))

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        w, u, b, slope = self._params(context)
        y = jnp.sum(w * x, -1) + b
        t = jnp.tanh(solve_tanh(y, jnp.broadcast_to(slope, y.shape)))
        return x - u * t[..., None], -jnp.log1p(slope * (1.0 - t**2))


class RadialLayer(Layer):
    r"""Space is stretched around a point, by the distance to it.

    \[ x = z + \beta\,\frac{z - z_0}{\alpha + r}, \qquad r = |z - z_0|, \quad \beta > -\alpha \]

    Pulling solves a quadratic equation for r, exactly.

    Args:
        features: number of features.
        context: number of context features.
        hidden: units of each hidden layer of the context's network.
        activation: of the context's network.
        seed: seed of the weights, or a NumPy generator; the layer begins as the identity.

    Cost:
        A distance in both directions.

    References:
        Rezende, Mohamed: Variational inference with normalizing flows. ICML 2015.
        https://arxiv.org/abs/1505.05770

    Example:
        >>> RadialLayer(2)()(jnp.ones(2)).tolist()
        [1.0, 1.0]
    """

    given: Given
    about: About = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        *,
        activation: str = "relu",
        seed: int | np.random.Generator = 0,
    ) -> None:
        flow_checks.sizes(features, context, hidden)
        rng = np.random.default_rng(seed)
        start = np.zeros(features + 2)
        start[:features] = rng.normal(size=features)
        self.given = Given(start, context, hidden, activation=activation, seed=rng)
        self.about = About((features,), context)

    def _params(self, context: Context) -> tuple[Array, Array, Array]:
        params = self.given(context)
        alpha = jnp.exp(params[..., -2])
        return params[..., :-2], alpha, alpha * above_minus_one(params[..., -1])

    def _log_det(self, alpha: Array, beta: Array, r: Array) -> Array:
        h = 1.0 / (alpha + r)
        return (self.event_shape[0] - 1) * jnp.log1p(beta * h) + jnp.log1p(alpha * beta * h**2)

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        center, alpha, beta = self._params(context)
        r = _length(z - center)
        x = z + (beta / (alpha + r))[..., None] * (z - center)
        return x, self._log_det(alpha, beta, r)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        center, alpha, beta = self._params(context)
        far = _length(x - center)
        b = alpha + beta - far
        root = jnp.sqrt(b**2 + 4.0 * alpha * far)
        r = jnp.where(b > 0, 2.0 * alpha * far / (jnp.abs(b) + root), 0.5 * (root - b))
        z = center + (x - center) / (1.0 + beta / (alpha + r))[..., None]
        return z, -self._log_det(alpha, beta, r)


def _length(value: Array) -> Array:
    return jnp.sqrt(jnp.sum(value**2, -1) + 1e-24)


class SylvesterLayer(Layer):
    r"""A residual network of one hidden layer with M units, its weights by orthogonal factors.

    \[ x = z + Q R \tanh(\tilde R Q^\top z + b), \qquad
       \log|\det J| = \textstyle\sum_i \log\big(1 + r_{ii}\tilde r_{ii} \tanh'(a_i)\big) \]

    Q has M orthonormal columns, by Householder reflections; R and \(\tilde R\) are upper triangular
    with diagonals in (-1, 1). Pulling solves M one-dimensional equations, one after the other.

    Args:
        features: number of features D.
        context: number of context features.
        units: hidden units M, at most D; the smaller of D and 4 when None.
        hidden: units of each hidden layer of the context's network.
        activation: of the context's network.
        seed: seed of the weights, or a NumPy generator; the layer begins as the identity.

    Raises:
        ValueError: more units than features.

    Cost:
        M products of D operations; M scalar equations of some five steps more to pull.

    References:
        van den Berg, Hasenclever, Tomczak, Welling: Sylvester normalizing flows for variational
        inference. UAI 2018. https://arxiv.org/abs/1803.05649

    Example:
        >>> SylvesterLayer(3)()(jnp.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """

    given: Given
    units: int = eqx.field(static=True)
    about: About = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        context: int = 0,
        units: int | None = None,
        hidden: Sequence[int] = (64, 64),
        *,
        activation: str = "relu",
        seed: int | np.random.Generator = 0,
    ) -> None:
        flow_checks.sizes(features, context, hidden)
        m = self.units = flow_checks.whole("units", min(features, 4) if units is None else units)
        if m > features:
            raise ValueError(f"units must be at most features, got {m} of {features}.")
        rng = np.random.default_rng(seed)
        vectors = rng.normal(size=m * features)
        second = np.eye(m).reshape(-1) * 0.5 + rng.normal(size=m * m) / m
        start = np.concatenate([vectors, np.zeros(m * m), second, np.zeros(m)])
        self.given = Given(start, context, hidden, activation=activation, seed=rng)
        self.about = About((features,), context, "push", True)

    def _params(self, context: Context) -> tuple[Array, Array, Array, Array]:
        params, m, size = self.given(context), self.units, self.event_shape[0]
        cuts = m * size, m * (size + m), m * (size + 2 * m)
        vectors, first, second, b = jnp.split(params, cuts, -1)
        vectors = vectors.reshape(*vectors.shape[:-1], 1, m, size)
        basis = reflect(vectors, jnp.eye(m, size, dtype=params.dtype))
        return basis, _triangular(first, m), _triangular(second, m), b

    def _inner(self, params: tuple[Array, ...], value: Array) -> Array:
        basis, _, second, b = params
        inner = jnp.sum(basis * value[..., None, :], -1)
        return jnp.sum(second * inner[..., None, :], -1) + b

    def _moved(self, params: tuple[Array, ...], t: Array) -> tuple[Array, Array]:
        basis, first, second, _ = params
        step = jnp.sum(jnp.sum(first * t[..., None, :], -1)[..., None] * basis, -2)
        diagonal = _diagonal(first) * _diagonal(second)
        return step, jnp.log1p(diagonal * (1.0 - t**2)).sum(-1)

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        params = self._params(context)
        step, log_det = self._moved(params, jnp.tanh(self._inner(params, z)))
        return z + step, log_det

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        params = self._params(context)
        y = self._inner(params, x)
        product = params[2] @ params[1]
        found: list[Array] = []
        for i in reversed(range(self.units)):
            own = y[..., i]
            for j, t in zip(range(self.units - 1, i, -1), found, strict=True):
                own = own - product[..., i, j] * t
            slope = jnp.broadcast_to(product[..., i, i], own.shape)
            found.append(jnp.tanh(solve_tanh(own, slope)))
        step, log_det = self._moved(params, jnp.stack(found[::-1], -1))
        return x - step, -log_det


def _triangular(flat: Array, size: int) -> Array:
    square = flat.reshape(*flat.shape[:-1], size, size)
    eye = jnp.eye(size, dtype=flat.dtype)
    return jnp.triu(square, 1) + jnp.tanh(square) * eye


def _diagonal(square: Array) -> Array:
    return jnp.diagonal(square, axis1=-2, axis2=-1)
