"""Linear layers: a matrix by its LU factors (1x1 convolutions too), Householder reflections."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array

from deepgen_ppl import flow_checks
from deepgen_ppl.numpyro.flows.layer import About, Context, Layer, Pushed


class LinearLU(Layer):
    r"""A learned matrix by its factors, \( x = P L U z + b \), with \(\log|\det| = \sum s_i\).

    L is lower triangular with ones, U upper triangular with the diagonal \(e^{s}\), and P a fixed
    permutation. On images it is the invertible 1x1 convolution of the channels.

    Args:
        features: number of features, or the shape (height, width, channels) of an image.
        permute: whether P is a random permutation rather than the identity.
        seed: seed of the permutation, or a NumPy generator.

    Cost:
        A product of D^2 operations to push, and two triangular solutions to pull.

    References:
        Kingma, Dhariwal: Glow, generative flow with invertible 1x1 convolutions. NeurIPS 2018.
        https://arxiv.org/abs/1807.03039

    Example:
        >>> LinearLU(2, permute=False)()(jnp.array([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """

    lower: Array
    upper: Array
    log_scale: Array
    shift: Array
    order: np.ndarray
    about: About = eqx.field(static=True)

    def __init__(
        self,
        features: int | tuple[int, ...],
        *,
        permute: bool = True,
        seed: int | np.random.Generator = 0,
    ) -> None:
        shape = (features,) if isinstance(features, int) else tuple(features)
        size = flow_checks.whole("features", shape[-1])
        self.lower, self.upper = jnp.zeros((size, size)), jnp.zeros((size, size))
        self.log_scale, self.shift = jnp.zeros(size), jnp.zeros(size)
        self.order = flow_checks.permutation(size if permute else tuple(range(size)), seed)
        self.about = About(shape)

    def _factors(self) -> tuple[Array, Array]:
        lower = jnp.tril(self.lower, -1) + jnp.eye(len(self.shift), dtype=self.shift.dtype)
        return lower, jnp.triu(self.upper, 1) + jnp.diag(jnp.exp(self.log_scale))

    def _log_det(self, value: Array) -> Array:
        repeats = int(np.prod(self.event_shape[:-1]))
        batch = value.shape[: value.ndim - len(self.event_shape)]
        return jnp.broadcast_to(repeats * self.log_scale.sum(), batch)

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        lower, upper = self._factors()
        x = z @ (lower @ upper).T
        return jnp.take(x, jnp.asarray(self.order), -1) + self.shift, self._log_det(z)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        lower, upper = self._factors()
        flat = jnp.take(x - self.shift, jnp.argsort(jnp.asarray(self.order)), -1)
        flat = flat.reshape(-1, x.shape[-1]).T
        half = solve_triangular(lower, flat, lower=True, unit_diagonal=True)
        return solve_triangular(upper, half).T.reshape(x.shape), -self._log_det(x)


class Householder(Layer):
    r"""Learned reflections, \( x = H_1 \cdots H_K z \), an orthogonal matrix.

    \[ H_k = I - 2\, v_k v_k^\top / |v_k|^2 \]

    Args:
        features: number of features.
        reflections: number of reflections K.
        seed: seed of the vectors, or a NumPy generator.

    Cost:
        K products of D operations in both directions.

    References:
        Tomczak, Welling: Improving variational auto-encoders using Householder flow. 2016.
        https://arxiv.org/abs/1611.09630

    Example:
        >>> x = Householder(3)()(jnp.ones(3))
        >>> bool(abs(jnp.sum(x**2) - 3.0) < 1e-5)
        True
    """

    vectors: Array
    about: About = eqx.field(static=True)

    def __init__(
        self, features: int, *, reflections: int = 4, seed: int | np.random.Generator = 0
    ) -> None:
        flow_checks.whole("features", features)
        flow_checks.whole("reflections", reflections)
        drawn = np.random.default_rng(seed).normal(size=(reflections, features))
        self.vectors, self.about = jnp.asarray(drawn, float), About((features,))

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Reflect, the last vector first."""
        return reflect(self.vectors[::-1], z), jnp.zeros(z.shape[:-1], z.dtype)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Reflect, the first vector first."""
        return reflect(self.vectors, x), jnp.zeros(x.shape[:-1], x.dtype)


def reflect(vectors: Array, value: Array) -> Array:
    """Reflect values at the planes of some vectors, of shape (*batch, K, D), one by one."""
    for k in range(vectors.shape[-2]):
        v = vectors[..., k, :]
        v = v / jnp.sqrt(jnp.sum(v**2, -1, keepdims=True))
        value = value - 2.0 * jnp.sum(v * value, -1, keepdims=True) * v
    return value
