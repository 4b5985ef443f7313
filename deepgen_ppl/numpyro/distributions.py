"""Distributions that the language lacks, as native as its own."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpyro.distributions as dist
from jax import Array, lax, random
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

LEAST_LOG_SCALE = -7.0
"""Log scales of discretized logistics are not below it, on a scale from -1 to 1."""


class BernoulliLogits(dist.BernoulliLogits):
    r"""NumPyro's Bernoulli of log odds, with their gradient where they are zero.

    $$\log p(x) = -\operatorname{softplus}((1 - 2x)\,\ell)$$

    NumPyro's own gradient there is x in place of x - 1/2, so that a network whose last layer begins
    at zero never learns a pixel that is always off.

    Example:
        >>> jax.grad(lambda logits: BernoulliLogits(logits).log_prob(0))(0.0).item()
        -0.5
    """

    @validate_sample
    def log_prob(self, value: Any) -> Array:
        """Return the log probability of bits."""
        logits = jnp.asarray(self.logits)
        return -jax.nn.softplus(jnp.where(jnp.asarray(value) == 1, -logits, logits))


class DiscretizedLogistic(dist.Distribution):
    r"""A logistic density, summed over each of the levels 0 to L - 1.

    $$p(x) = \sigma\Bigl(\frac{x^+ - \mu}{s}\Bigr) - \sigma\Bigl(\frac{x^- - \mu}{s}\Bigr)$$

    with the edges of the level x on a scale from -1 to 1; the outermost levels hold the tails, so
    that the probabilities sum to one. Both differences of the density are computed without loss of
    digits. A mixture is `MixtureSameFamily` of it.

    Args:
        loc: location, on the scale from -1 to 1.
        log_scale: logarithm of s; taken as -7 where it is less.
        levels: number L of levels.

    References:
        Salimans, Karpathy, Chen, Kingma: PixelCNN++. ICLR 2017. https://arxiv.org/abs/1701.05517

    Example:
        >>> fn = DiscretizedLogistic(jnp.zeros(()), jnp.zeros(()), 4)
        >>> bool(jnp.allclose(jnp.exp(fn.log_prob(jnp.arange(4))).sum(), 1.0))
        True
    """

    arg_constraints = {"loc": constraints.real, "log_scale": constraints.real}  # noqa: RUF012
    # Levels past the last have probability zero: a mixture wants a support without parameters.
    support: Any = constraints.nonnegative_integer  # pyright: ignore[reportIncompatibleMethodOverride]
    pytree_aux_fields = ("levels",)

    def __init__(
        self, loc: Any, log_scale: Any, levels: int = 256, *, validate_args: bool | None = None
    ) -> None:
        self.loc, self.log_scale = jnp.broadcast_arrays(jnp.asarray(loc), jnp.asarray(log_scale))
        self.levels = levels
        super().__init__(self.loc.shape, (), validate_args=validate_args)

    @property
    def scale(self) -> Array:
        """The scale s."""
        return jnp.exp(jnp.maximum(self.log_scale, LEAST_LOG_SCALE))

    @validate_sample
    def log_prob(self, value: Any) -> Array:
        """Return the log probability of levels."""
        found = level_log_prob(value, self.loc, self.scale, self.levels)
        return jnp.where(value > self.levels - 1, -jnp.inf, found)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return draws, whole numbers as floats."""
        noise = random.logistic(key, (*sample_shape, *self.batch_shape), self.loc.dtype)
        return nearest_level(self.loc + self.scale * noise, self.levels)

    @property
    def mean(self) -> Array:
        """The mean level: the sum of the probabilities of more than each level."""
        edges = (2.0 * jnp.arange(self.levels - 1) + 1.0) / (self.levels - 1) - 1.0

        def add(total: Array, edge: Array) -> tuple[Array, None]:
            return total + jax.nn.sigmoid((self.loc - edge) / self.scale), None

        return lax.scan(add, jnp.zeros_like(self.loc), edges.astype(self.loc.dtype))[0]


def level_log_prob(value: Any, loc: Array, scale: Array, levels: int) -> Float[Array, "*batch"]:
    """Return the log probability of a level under a logistic cut into levels between -1 and 1.

    Args:
        value: the level; below the first one it counts as the first, past the last one as the last.
        loc: location of the logistic.
        scale: its scale.
        levels: number of levels.

    Example:
        >>> zero = jnp.zeros(())
        >>> round(level_log_prob(1, zero, 1.0 + zero, 3).item(), 4)
        -1.4068
    """
    half = 1.0 / (levels - 1)
    centred = value * (2.0 * half) - 1.0 - loc
    above, below = (centred + half) / scale, (centred - half) / scale
    first, last = value <= 0, value >= levels - 1
    inside = jnp.where(first | last, 0.0, jnp.log(-jnp.expm1(-2.0 * half / scale)))
    left = jnp.where(last, 0.0, jax.nn.log_sigmoid(above))
    return left + jnp.where(first, 0.0, jax.nn.log_sigmoid(-below)) + inside


def nearest_level(x: Float[Array, "*batch"], levels: int) -> Float[Array, "*batch"]:
    """Return the level nearest to a number on the scale from -1, the first one, to 1, the last one.

    Args:
        x: the numbers.
        levels: number of levels.

    Example:
        >>> nearest_level(jnp.array([-3.0, 0.1, 1.0]), 5).tolist()
        [0.0, 2.0, 4.0]
    """
    return jnp.clip(jnp.round((x + 1.0) * (0.5 * (levels - 1))), 0, levels - 1)


class DiagonalMixture(dist.Distribution):
    r"""A mixture of normals with diagonal covariance whose draws carry gradients.

    $$q(z) = \sum_k w_k\, \mathcal N(z; m_k, \mathrm{diag}(s_k^2))$$

    The gradient of a draw is implicit: the distribution function of each coordinate given those
    before it, \(F_d(z_d \mid z_{<d})\), does not change as parameters move the draw along, so that
    \(\partial z = -(\partial_z F)^{-1} \partial F\), with a triangular \(\partial_z F\).

    Args:
        logits: logits of the weights, shape (*batch, K).
        locs: locations, shape (*batch, K, D).
        scales: standard deviations, shape (*batch, K, D).

    Cost:
        K D numbers for densities, K D^2 for draws.

    References:
        Figurnov, Mohamed, Mnih: Implicit reparameterization gradients. NeurIPS 2018.
        https://arxiv.org/abs/1805.08498

    Example:
        >>> fn = DiagonalMixture(jnp.zeros(2), jnp.zeros((2, 3)), jnp.ones((2, 3)))
        >>> bool(jnp.allclose(fn.log_prob(jnp.zeros(3)), -1.5 * jnp.log(2 * jnp.pi)))
        True
    """

    arg_constraints = {  # noqa: RUF012
        "logits": constraints.real_vector,
        "locs": constraints.independent(constraints.real, 2),
        "scales": constraints.independent(constraints.positive, 2),
    }
    support: Any = constraints.real_vector  # pyright: ignore[reportIncompatibleMethodOverride]
    reparametrized_params = ["logits", "locs", "scales"]  # noqa: RUF012

    def __init__(
        self,
        logits: Float[Array, "*batch K"],
        locs: Float[Array, "*batch K D"],
        scales: Float[Array, "*batch K D"],
        *,
        validate_args: bool | None = None,
    ) -> None:
        batch = jnp.broadcast_shapes(logits.shape[:-1], locs.shape[:-2], scales.shape[:-2])
        self.logits = jnp.broadcast_to(logits, (*batch, logits.shape[-1]))
        self.locs = jnp.broadcast_to(locs, (*batch, *locs.shape[-2:]))
        self.scales = jnp.broadcast_to(scales, (*batch, *scales.shape[-2:]))
        super().__init__(batch, locs.shape[-1:], validate_args=validate_args)

    def _each(self, value: Array) -> Array:
        """Return the log density of each coordinate under each component."""
        scaled = (value[..., None, :] - self.locs) / self.scales
        return -0.5 * scaled**2 - jnp.log(self.scales) - 0.5 * math.log(2.0 * math.pi)

    @validate_sample
    def log_prob(self, value: Any) -> Array:
        """Return the log density."""
        own = jax.nn.log_softmax(self.logits) + jnp.sum(self._each(value), -1)
        return jsp.special.logsumexp(own, axis=-1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return draws, which carry gradients."""
        shape = (*sample_shape, *self.batch_shape)
        choice, noise = random.split(key)
        k = random.categorical(choice, self.logits, shape=shape)[..., None, None]
        locs, scales = (
            jnp.take_along_axis(jnp.broadcast_to(x, (*shape, *x.shape[-2:])), k, -2)[..., 0, :]
            for x in (self.locs, self.scales)
        )
        z = lax.stop_gradient(locs + scales * random.normal(noise, locs.shape, locs.dtype))
        below, slopes = self._distribution(z)
        moved = below - lax.stop_gradient(below)
        solved = jsp.linalg.solve_triangular(
            lax.stop_gradient(slopes), moved[..., None], lower=True
        )
        return z - solved[..., 0]

    def _distribution(self, z: Array) -> tuple[Array, Array]:
        """Return the distribution function of each coordinate given those before; slopes."""
        each = self._each(z)
        before = jnp.cumsum(each, -1) - each
        weights = jax.nn.softmax(self.logits[..., None] + before, axis=-2)
        inside = jsp.special.ndtr((z[..., None, :] - self.locs) / self.scales)
        found = jnp.sum(weights * inside, -2)
        pull = -(z[..., None, :] - self.locs) / self.scales**2
        mean_pull = jnp.einsum("...kd,...kj->...dj", weights, pull)
        slopes = jnp.einsum("...kd,...kj->...dj", weights * inside, pull)
        slopes = jnp.tril(slopes - found[..., None] * mean_pull, -1)
        density = jnp.sum(weights * jnp.exp(each), -2)
        return found, slopes + density[..., None] * jnp.eye(z.shape[-1], dtype=z.dtype)

    @property
    def mean(self) -> Array:
        """The mean."""
        return jnp.sum(jax.nn.softmax(self.logits)[..., None] * self.locs, -2)

    @property
    def variance(self) -> Array:
        """The variance of each coordinate."""
        weights = jax.nn.softmax(self.logits)[..., None]
        second = jnp.sum(weights * (self.locs**2 + self.scales**2), -2)
        return second - self.mean**2


class ContinuousBernoulli(dist.Distribution):
    r"""The density on [0, 1] that a Bernoulli of grey values lacks the constant of.

    $$p(x) = C(\lambda)\, \lambda^x (1 - \lambda)^{1 - x}, \qquad
      C = \frac{a}{\tanh(a/2)}, \quad a = \operatorname{logit} \lambda$$

    Args:
        logits: a, any real numbers.

    References:
        Loaiza-Ganem, Cunningham: The continuous Bernoulli, fixing a pervasive error in variational
        autoencoders. NeurIPS 2019. https://arxiv.org/abs/1907.06845

    Example:
        >>> ContinuousBernoulli(jnp.zeros(2)).log_prob(jnp.array([0.1, 0.9])).tolist()  # uniform
        [0.0, 0.0]
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012
    support: Any = constraints.unit_interval  # pyright: ignore[reportIncompatibleMethodOverride]
    reparametrized_params = ["logits"]  # noqa: RUF012

    def __init__(self, logits: Any, *, validate_args: bool | None = None) -> None:
        self.logits = jnp.asarray(logits)
        super().__init__(self.logits.shape, (), validate_args=validate_args)

    def _away(self, least: float) -> tuple[Array, Array]:
        """Return where the logit is near zero, and the logit moved away from there."""
        small = jnp.abs(self.logits) < least
        return small, jnp.where(small, 1.0, self.logits)

    @validate_sample
    def log_prob(self, value: Any) -> Array:
        """Return the log density; where the quotient has few digits, by its series."""
        a, (small, away) = self.logits, self._away(0.1)
        series = math.log(2.0) + jnp.log1p(a**2 / 12.0 - a**4 / 720.0 + a**6 / 30240.0)
        constant = jnp.where(small, series, jnp.log(away / jnp.tanh(away / 2.0)))
        return value * a - jax.nn.softplus(a) + constant

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return draws by the inverse of the distribution function, which carry gradients."""
        a, (small, away) = self.logits, self._away(1e-3)
        u = random.uniform(key, (*sample_shape, *self.batch_shape), a.dtype)
        x = jnp.log1p(u * jnp.expm1(-jnp.abs(away))) / -jnp.abs(away)
        x = jnp.where(away > 0, 1.0 - x, x)
        return jnp.clip(jnp.where(small, u + 0.5 * a * u * (1.0 - u), x), 0.0, 1.0)

    @property
    def mean(self) -> Array:
        """The mean."""
        a, (small, away) = self.logits, self._away(0.1)
        series = 0.5 + a / 12.0 - a**3 / 720.0 + a**5 / 30240.0
        return jnp.where(small, series, -1.0 / jnp.expm1(-away) - 1.0 / away)
