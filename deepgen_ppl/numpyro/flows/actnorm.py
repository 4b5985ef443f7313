"""Scale and shift of each feature: learned (ActNorm), or fixed from data (Standardise)."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deepgen_ppl import flow_checks
from deepgen_ppl.numpyro.flows.layer import About, Context, Layer, Pushed

_LEAST = 1e-6


class ActNorm(Layer):
    r"""A learned scale and shift, \( x = z\,e^{s} + t \), of each feature or channel of images.

    `dg.flows.initialised` sets both from a batch, so that the batch has mean 0 and deviation 1 at
    the base's side.

    Args:
        features: number of features, or the shape (height, width, channels) of an image.

    References:
        Kingma, Dhariwal: Glow, generative flow with invertible 1x1 convolutions. NeurIPS 2018.
        https://arxiv.org/abs/1807.03039

    Example:
        >>> ActNorm(2)()(jnp.ones(2)).tolist()
        [1.0, 1.0]
    """

    log_scale: Array
    shift: Array
    about: About = eqx.field(static=True)

    def __init__(self, features: int | tuple[int, ...]) -> None:
        shape = (features,) if isinstance(features, int) else tuple(features)
        flow_checks.sizes(shape[-1], 0, ())
        self.log_scale, self.shift = jnp.zeros(shape[-1]), jnp.zeros(shape[-1])
        self.about = About(shape)

    def _log_det(self, value: Array) -> Array:
        repeats = int(np.prod(self.event_shape[:-1]))
        batch = value.shape[: value.ndim - len(self.event_shape)]
        return jnp.broadcast_to(repeats * self.log_scale.sum(), batch)

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        return z * jnp.exp(self.log_scale) + self.shift, self._log_det(z)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        return (x - self.shift) * jnp.exp(-self.log_scale), -self._log_det(x)

    def initialise(self, x: Array, context: Context = None) -> tuple[Layer, Array]:
        """Begin with mean and deviation of the batch."""
        axes = tuple(range(x.ndim - 1))
        log_scale = jnp.log(jnp.std(x, axes) + _LEAST)
        begun = eqx.tree_at(lambda m: (m.log_scale, m.shift), self, (log_scale, jnp.mean(x, axes)))
        return begun, begun.pull(x)[0]


class Standardise(Layer):
    r"""A fixed scale and shift, \( x = z\,s + m \), fitted from data and never learned.

    Args:
        mean: m of each feature.
        scale: s of each feature.

    Raises:
        ValueError: a scale is not positive.

    Example:
        >>> Standardise(np.zeros(2), np.full(2, 3.0))()(jnp.ones(2)).tolist()
        [3.0, 3.0]
    """

    mean: tuple[float, ...] = eqx.field(static=True)  # no arrays, so that nothing trains them
    scale: tuple[float, ...] = eqx.field(static=True)
    about: About = eqx.field(static=True)

    def __init__(self, mean: np.ndarray, scale: np.ndarray) -> None:
        mean, scale = flow_checks.mean_and_scale(mean, scale)
        self.mean, self.scale = tuple(mean.ravel().tolist()), tuple(scale.ravel().tolist())
        self.about = About(mean.shape)

    @classmethod
    def of(cls, x: np.ndarray, event_dim: int = 1) -> Standardise:
        """Return the layer with mean and deviation of data, over all but the event axes."""
        axes = tuple(range(x.ndim - event_dim))
        return cls(x.mean(axes), x.std(axes))

    def _arrays(self, value: Array) -> tuple[Array, Array, Array]:
        mean, scale = (
            jnp.asarray(v, value.dtype).reshape(self.event_shape) for v in (self.mean, self.scale)
        )
        batch = value.shape[: value.ndim - len(self.event_shape)]
        log_det = jnp.broadcast_to(jnp.log(scale).sum(), batch)
        return mean, scale, log_det

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        mean, scale, log_det = self._arrays(z)
        return z * scale + mean, log_det

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        mean, scale, log_det = self._arrays(x)
        return (x - mean) / scale, -log_det
