"""Permutations of the features, reversed or at random."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deepgen_ppl import flow_checks
from deepgen_ppl.numpyro.flows.layer import About, Context, Layer, Pushed


class Reverse(Layer):
    """The features in reverse order.

    Args:
        features: number of features.

    Example:
        >>> Reverse(3)()(jnp.arange(3.0)).tolist()
        [2.0, 1.0, 0.0]
    """

    about: About = eqx.field(static=True)

    def __init__(self, features: int) -> None:
        flow_checks.sizes(features, 0, ())
        self.about = About((features,))

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Reverse the order."""
        return z[..., ::-1], jnp.zeros(z.shape[:-1], z.dtype)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Reverse the order."""
        return x[..., ::-1], jnp.zeros(x.shape[:-1], x.dtype)


class Permutation(Layer):
    """The features in another order.

    Args:
        order: the order, a permutation of 0 to D - 1; for a whole number D, one at random.
        seed: seed of the random order, or a NumPy generator.

    Raises:
        ValueError: the order is no permutation.

    Example:
        >>> Permutation((2, 0, 1))()(jnp.arange(3.0)).tolist()
        [2.0, 0.0, 1.0]
    """

    order: np.ndarray
    about: About = eqx.field(static=True)

    def __init__(
        self, order: int | tuple[int, ...], *, seed: int | np.random.Generator = 0
    ) -> None:
        self.order = flow_checks.permutation(order, seed)
        self.about = About((len(self.order),))

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Put the features in order."""
        return reorder(z, jnp.asarray(self.order)), jnp.zeros(z.shape[:-1], z.dtype)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Put the features back."""
        back = jnp.argsort(jnp.asarray(self.order))
        return reorder(x, back), jnp.zeros(x.shape[:-1], x.dtype)


def reorder(value: Array, order: Array) -> Array:
    """Return the features in an order, moved as rows: gradients then move whole rows too."""
    rows = jnp.moveaxis(value, -1, 0)
    return jnp.moveaxis(jnp.take(rows, order, 0, unique_indices=True, mode="clip"), 0, -1)
