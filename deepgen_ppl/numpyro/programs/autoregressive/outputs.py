"""What a conditional of an autoregressive model is: a family with its density and its draws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from deepgen_ppl import flow_checks
from deepgen_ppl.autoregressive_checks import Values
from deepgen_ppl.numpyro.distributions import BernoulliLogits
from deepgen_ppl.numpyro.programs.autoregressive.logistic import DiscretizedLogisticMixture

Params = Float[Array, "*batch size"]


class Output(ABC):
    """A family of distributions of one feature, given by real parameters; an abstract base.

    Parameters of zero are a sensible beginning: every value is about as likely as every other one.

    Attributes:
        size: number of parameters P of a feature.
        inputs: how many numbers E a network is given of a value.
        uniforms: how many uniform numbers a draw takes.
        values: which values a feature may take.
        support: the native constraint of one value.
    """

    size: int
    inputs: int
    uniforms: int
    values: Values
    support: Any

    @abstractmethod
    def encode(self, x: Array, dtype: Any) -> Float[Array, "*batch inputs"]:
        """Return what a network is given of values."""

    @abstractmethod
    def distribution(self, params: Params) -> Any:
        """Return the native distribution at some parameters."""

    @abstractmethod
    def draw(self, params: Params, u: Float[Array, "*batch uniforms"]) -> Array:
        """Return the value that uniform numbers stand for."""

    def log_prob(self, params: Params, x: Array) -> Float[Array, "*batch"]:
        """Return the log density, minus infinity outside of the support."""
        inside = self.support(x)
        x = jnp.where(inside, x, 0)
        x = x if self.values.kind == "real" else x.astype(jnp.int32)
        found: Any = self.distribution(params).log_prob(x)
        return jnp.where(inside, found, -jnp.inf)


@dataclass(frozen=True)
class Bernoulli(Output):
    r"""A bit, 0 or 1, of one parameter: its log odds.

    Example:
        >>> round(Bernoulli().log_prob(jnp.zeros(1), jnp.array(1)).item(), 4)
        -0.6931
    """

    size = 1
    inputs = 1
    uniforms = 1
    values = Values("binary")
    support = constraints.boolean

    def encode(self, x: Array, dtype: Any) -> Float[Array, "*batch 1"]:
        """Return the bit."""
        return x.astype(dtype)[..., None]

    def distribution(self, params: Params) -> Any:
        """Return NumPyro's Bernoulli."""
        return BernoulliLogits(params[..., 0])

    def draw(self, params: Params, u: Float[Array, "*batch 1"]) -> Array:
        """Return 1 where the uniform number is below the probability."""
        return (u[..., 0] < jax.nn.sigmoid(params[..., 0])).astype(jnp.int32)


@dataclass(frozen=True)
class Categorical(Output):
    r"""One of K symbols, 0 to K - 1, of K parameters: their log weights.

    Args:
        number: number of symbols K.

    Raises:
        ValueError: fewer than two.

    Example:
        >>> round(Categorical(4).log_prob(jnp.zeros(4), jnp.array(2)).item(), 4)
        -1.3863
    """

    number: int

    def __post_init__(self) -> None:
        flow_checks.whole("number", self.number, 2)

    uniforms = 1

    @property
    def size(self) -> int:
        """One parameter a symbol."""
        return self.number

    @property
    def inputs(self) -> int:
        """One number a symbol."""
        return self.number

    @property
    def values(self) -> Values:
        """Whole numbers below K."""
        return Values("integer", self.number)

    @property
    def support(self) -> Any:
        """Whole numbers below K."""
        return constraints.integer_interval(0, self.number - 1)

    def encode(self, x: Array, dtype: Any) -> Float[Array, "*batch inputs"]:
        """Return a one at the symbol among zeros."""
        return jax.nn.one_hot(x.astype(jnp.int32), self.number, dtype=dtype)

    def distribution(self, params: Params) -> Any:
        """Return NumPyro's Categorical."""
        return dist.Categorical(logits=params)

    def draw(self, params: Params, u: Float[Array, "*batch 1"]) -> Array:
        """Return the symbol in whose share of the unit interval the uniform number lies."""
        return chosen(params, u[..., 0])


@dataclass(frozen=True)
class GaussianMixture(Output):
    r"""A real number by a mixture of normals.

    \[ p(x) = \sum_k \pi_k\, \mathcal N(x; \mu_k, \sigma_k), \qquad
       \sigma_k = 10^{-3} + \mathrm{softplus}(s_k + 0.54) \]

    Draws carry exact gradients, by implicit differentiation of the distribution function: also
    where the mixture has several components.

    Args:
        components: number of components.

    References:
        Figurnov, Mohamed, Mnih: Implicit reparameterization gradients. NeurIPS 2018.
        https://arxiv.org/abs/1805.08498

    Example:
        >>> round(GaussianMixture(1).log_prob(jnp.zeros(3), jnp.array(0.0)).item(), 1)
        -0.9
    """

    components: int = 5

    def __post_init__(self) -> None:
        flow_checks.whole("components", self.components)

    inputs = 1
    uniforms = 2
    values = Values("real")
    support = constraints.real

    @property
    def size(self) -> int:
        """Weight, mean and scale of each component."""
        return 3 * self.components

    def encode(self, x: Array, dtype: Any) -> Float[Array, "*batch 1"]:
        """Return the number."""
        return x.astype(dtype)[..., None]

    def parts(self, params: Params) -> tuple[Array, Array, Array]:
        """Return log weights, means and scales, those of zero parameters spread over the line."""
        logits, means, scales = jnp.split(params, 3, -1)
        means = means + spread(self.components, 1.5, params.dtype)
        return jax.nn.log_softmax(logits), means, 1e-3 + jax.nn.softplus(scales + 0.54)

    def distribution(self, params: Params) -> Any:
        """Return NumPyro's mixture of normals."""
        logits, means, scales = self.parts(params)
        normal = dist.Normal(means, scales)
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), normal)

    def draw(self, params: Params, u: Float[Array, "*batch 2"]) -> Array:
        """Return a draw whose gradient is that of the distribution function's inverse."""
        logits, means, scales = self.parts(params)
        which = chosen(logits, u[..., 0])[..., None]
        mean, scale = (jnp.take_along_axis(a, which, -1)[..., 0] for a in (means, scales))
        x = lax.stop_gradient(mean + scale * jax.scipy.special.ndtri(inner(u[..., 1])))
        z = (x[..., None] - means) / scales
        weights = jnp.exp(logits)
        below = (weights * jax.scipy.special.ndtr(z)).sum(-1)
        density = (weights * jnp.exp(-0.5 * z**2) / (scales * (2 * jnp.pi) ** 0.5)).sum(-1)
        return x - (below - lax.stop_gradient(below)) / lax.stop_gradient(density)


@dataclass(frozen=True)
class LogisticMixture(Output):
    r"""A level from 0 to L - 1 by a mixture of logistic distributions, each cut into L bins.

    \[ P(x) = \sum_k \pi_k \left[\sigma\!\left(\tfrac{t + h - \mu_k}{s_k}\right)
       - \sigma\!\left(\tfrac{t - h - \mu_k}{s_k}\right)\right], \qquad
       t = \tfrac{2 x}{L - 1} - 1,\quad h = \tfrac{1}{L - 1}, \]

    where the first and the last bin reach to infinity.

    Args:
        levels: number of levels L.
        components: number of components.

    Raises:
        ValueError: fewer than two levels or no component.

    References:
        Salimans, Karpathy, Chen, Kingma: PixelCNN++, improving the PixelCNN with discretized
        logistic mixture likelihood and other modifications. ICLR 2017.
        https://arxiv.org/abs/1701.05517

    Example:
        >>> x = jnp.arange(16)
        >>> jnp.exp(LogisticMixture(16).log_prob(jnp.ones(15), x)).sum().round(4).item()
        1.0
    """

    levels: int = 256
    components: int = 5

    def __post_init__(self) -> None:
        flow_checks.whole("levels", self.levels, 2)
        flow_checks.whole("components", self.components)

    inputs = 1
    uniforms = 2

    @property
    def size(self) -> int:
        """Weight, mean and scale of each component."""
        return 3 * self.components

    @property
    def values(self) -> Values:
        """Whole numbers below L."""
        return Values("integer", self.levels)

    @property
    def support(self) -> Any:
        """Whole numbers below L."""
        return constraints.integer_interval(0, self.levels - 1)

    def encode(self, x: Array, dtype: Any) -> Float[Array, "*batch 1"]:
        """Return the level between -1 and 1."""
        return (x.astype(dtype) * (2.0 / (self.levels - 1)) - 1.0)[..., None]

    def distribution(self, params: Params) -> DiscretizedLogisticMixture:
        """Return the native mixture, at zero with components spread over the levels."""
        logits, loc, log_scale = jnp.split(params, 3, -1)
        loc = loc + spread(self.components, 1.0, params.dtype)
        log_scale = log_scale - float(np.log(1.0 + self.components))
        return DiscretizedLogisticMixture(logits, loc, log_scale, self.levels)

    def draw(self, params: Params, u: Float[Array, "*batch 2"]) -> Array:
        """Return the level nearest to a draw of the mixture of logistic distributions."""
        mixture = self.distribution(params)
        noise = jax.scipy.special.logit(inner(u[..., 1]))
        return mixture.level(chosen(mixture.logits, u[..., 0]), noise)


def spread(number: int, width: float, dtype: Any) -> Array:
    """Return numbers spread from -width to width, zero for one."""
    return jnp.linspace(-width, width, number, dtype=dtype) if number > 1 else jnp.zeros(1, dtype)


def chosen(logits: Float[Array, "*batch k"], u: Float[Array, "*batch"]) -> Array:
    """Return the index in whose share of the unit interval a uniform number lies."""
    ends = jnp.cumsum(jax.nn.softmax(logits), -1)[..., :-1]
    return (u[..., None] >= ends).sum(-1).astype(jnp.int32)


def inner(u: Array) -> Array:
    """Return a uniform number away from the ends of the unit interval."""
    about = jnp.finfo(u.dtype)
    return jnp.clip(u, about.tiny, 1.0 - about.epsneg)
