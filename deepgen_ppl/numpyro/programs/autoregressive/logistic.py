"""Mixtures of logistic distributions cut into levels, as a native distribution."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from deepgen_ppl import flow_checks
from deepgen_ppl.numpyro.distributions import level_log_prob, nearest_level


class DiscretizedLogisticMixture(dist.Distribution):
    r"""A level from 0 to L - 1: a mixture of logistic variables between -1 and 1, cut into L bins.

    \[ P(x) = \sum_k \pi_k \left[\sigma\!\left(\tfrac{t + h - \mu_k}{s_k}\right)
       - \sigma\!\left(\tfrac{t - h - \mu_k}{s_k}\right)\right], \qquad
       t = \tfrac{2 x}{L - 1} - 1,\quad h = \tfrac{1}{L - 1}, \]

    where the first and the last bin reach to infinity. The log probability of a bin is exact also
    where it is small: it is a sum of logarithms, no difference of nearly equal numbers.

    Args:
        logits: log weights of the components, any constant added, shape (*batch, components).
        loc: locations between -1, the first level, and 1, the last one.
        log_scale: logs of the scales s.
        levels: number of levels L.

    References:
        Salimans, Karpathy, Chen, Kingma: PixelCNN++, improving the PixelCNN with discretized
        logistic mixture likelihood and other modifications. ICLR 2017.
        https://arxiv.org/abs/1701.05517

    Example:
        >>> loc = jnp.array([-0.5, 0.3])
        >>> mixture = DiscretizedLogisticMixture(jnp.zeros(2), loc, jnp.array([-1.0, -2.0]), 8)
        >>> jnp.exp(mixture.log_prob(jnp.arange(8))).sum().round(4).item()
        1.0
    """

    arg_constraints: Any = {  # noqa: RUF012
        "logits": constraints.real_vector,
        "loc": constraints.real_vector,
        "log_scale": constraints.real_vector,
    }
    pytree_aux_fields = ("levels",)

    def __init__(
        self,
        logits: Float[Array, "*batch components"],
        loc: Float[Array, "*batch components"],
        log_scale: Float[Array, "*batch components"],
        levels: int = 256,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.levels = flow_checks.whole("levels", levels, 2)
        self.logits, self.loc, self.log_scale = jnp.broadcast_arrays(logits, loc, log_scale)
        super().__init__(self.loc.shape[:-1], validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Whole numbers below L."""
        return constraints.integer_interval(0, self.levels - 1)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Return the log probability of a level."""
        value = jnp.asarray(value)[..., None]
        found = level_log_prob(value, self.loc, jnp.exp(self.log_scale), self.levels)
        return logsumexp(jax.nn.log_softmax(self.logits) + found, -1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return levels.

        Args:
            key: random key.
            sample_shape: shape of independent draws.
        """
        first, second = jax.random.split(key)
        shape = (*sample_shape, *self.batch_shape)
        noise = jax.random.logistic(second, shape, self.loc.dtype)
        return self.level(jax.random.categorical(first, self.logits, shape=shape), noise)

    def level(self, component: Array, noise: Array) -> Array:
        """Return the level nearest to a standard logistic number of a component."""
        parts = (jnp.broadcast_to(a, (*component.shape, a.shape[-1]))
                 for a in (self.loc, self.log_scale))  # fmt: skip
        loc, log_scale = (jnp.take_along_axis(a, component[..., None], -1)[..., 0] for a in parts)
        return nearest_level(loc + jnp.exp(log_scale) * noise, self.levels).astype(jnp.int32)
