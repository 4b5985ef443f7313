"""Discrete latents whose draws can be followed: one-hot draws, and relaxed ones with gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax, random
from jaxtyping import Float
from numpyro.distributions import constraints

from deepgen_ppl.joint_states import grid
from deepgen_ppl.numpyro.messages import base


class OneHots(dist.Distribution):
    r"""Several independent categorical variables, their one-hot vectors side by side.

    $$p(z) = \prod_v \prod_k \mathrm{softmax}(\ell_v)_k^{z_{vk}}$$

    Args:
        logits: unnormalised log probabilities, shape (*batch, variables, states).

    Example:
        >>> fn = OneHots(jnp.zeros((2, 3)))
        >>> fn.event_shape, round(float(fn.log_prob(fn.enumerate_support())[0]), 3)
        ((6,), -2.197)
    """

    arg_constraints = {"logits": constraints.real_matrix}  # noqa: RUF012
    support: Any = constraints.independent(constraints.boolean, 1)
    has_enumerate_support = True
    pytree_data_fields = ("logits",)

    def __init__(self, logits: Array, *, validate_args: bool | None = None) -> None:
        self.logits = logits
        *batch, variables, states = logits.shape
        super().__init__(tuple(batch), (variables * states,), validate_args=validate_args)

    @property
    def log_probs(self) -> Float[Array, "*batch variables states"]:
        """Log probability of each state."""
        return jax.nn.log_softmax(self.logits, axis=-1)

    @property
    def mean(self) -> Float[Array, "*batch features"]:
        """Probability of each state, side by side."""
        return jnp.exp(self.log_probs).reshape(*self.batch_shape, -1)

    @property
    def variance(self) -> Float[Array, "*batch features"]:
        """Variance of each entry."""
        return self.mean * (1.0 - self.mean)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return one-hot draws."""
        shape = (*sample_shape, *self.logits.shape[:-1])
        found = random.categorical(key, self.logits, axis=-1, shape=shape)
        hot = jax.nn.one_hot(found, self.logits.shape[-1], dtype=self.logits.dtype)
        return hot.reshape(*sample_shape, *self.shape())

    def log_prob(self, value: Any) -> Array:
        """Return the log probability; linear in the value, so that it takes relaxed ones too."""
        split = jnp.reshape(value, (*jnp.shape(value)[:-1], *self.logits.shape[-2:]))
        return jnp.sum(split * self.log_probs, axis=(-1, -2))

    def enumerate_support(self, expand: bool = True) -> Array:
        """Return all joint states, on a leading axis."""
        variables, states = self.logits.shape[-2:]
        found = jnp.eye(states, dtype=self.logits.dtype)[grid([states] * variables)]
        found = found.reshape(-1, *(1,) * len(self.batch_shape), variables * states)
        shape = (len(found), *self.batch_shape, variables * states)
        return jnp.broadcast_to(found, shape) if expand else found


class RelaxedBits(dist.Distribution):
    r"""Bits relaxed to (0, 1), whose draws carry gradients; the log probability is that of bits.

    $$z = \sigma\bigl((\ell + \epsilon) / \tau\bigr), \qquad \epsilon \sim \mathrm{Logistic}(0, 1)$$

    Args:
        logits: log odds \(\ell\).
        temperature: \(\tau\).
        straight_through: whether draws are rounded, with the gradient of the relaxed ones.

    References:
        Maddison, Mnih, Teh: The Concrete distribution. ICLR 2017. https://arxiv.org/abs/1611.00712

    Example:
        >>> fn = RelaxedBits(jnp.zeros(3), 0.5, True)
        >>> round(float(fn.log_prob(jnp.ones(3)).sum()), 3)
        -2.079
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012
    support: Any = constraints.real
    reparametrized_params = ["logits"]  # noqa: RUF012
    pytree_data_fields = ("logits", "temperature")
    pytree_aux_fields = ("straight_through",)

    def __init__(self, logits: Array, temperature: Any, straight_through: bool = False) -> None:
        self.logits, self.temperature = logits, temperature
        self.straight_through = straight_through
        super().__init__(jnp.shape(logits))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return relaxed draws."""
        shape = (*sample_shape, *self.batch_shape)
        noise = random.logistic(key, shape, self.logits.dtype)
        return soft_bits(self.logits, noise, self.temperature, self.straight_through)

    def log_prob(self, value: Any) -> Array:
        """Return the log probability of bits, linear in between."""
        return value * self.logits - jax.nn.softplus(self.logits)


class RelaxedOneHots(OneHots):
    r"""One-hot vectors relaxed to the simplex; the log probability is that of one-hot vectors.

    $$z_v = \mathrm{softmax}\bigl((\ell_v + \epsilon_v) / \tau\bigr), \qquad
      \epsilon_{vk} \sim \mathrm{Gumbel}(0, 1)$$

    Args:
        logits: unnormalised log probabilities, shape (*batch, variables, states).
        temperature: \(\tau\).
        straight_through: whether draws are one-hot, with the gradient of the relaxed ones.

    References:
        Jang, Gu, Poole: Categorical reparameterization with Gumbel-softmax. ICLR 2017.
        https://arxiv.org/abs/1611.01144

    Example:
        >>> fn = RelaxedOneHots(jnp.zeros((2, 3)), 0.5)
        >>> round(float(fn.sample(random.key(0)).sum()), 3)
        2.0
    """

    support: Any = constraints.real_vector
    reparametrized_params = ["logits"]  # noqa: RUF012
    pytree_data_fields = ("temperature",)
    pytree_aux_fields = ("straight_through",)

    def __init__(self, logits: Array, temperature: Any, straight_through: bool = False) -> None:
        self.temperature, self.straight_through = temperature, straight_through
        super().__init__(logits)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return relaxed draws."""
        noise = random.gumbel(key, (*sample_shape, *self.logits.shape), self.logits.dtype)
        found = soft_states(self.logits, noise, self.temperature, self.straight_through)
        return found.reshape(*sample_shape, *self.shape())


def soft_bits(logits: Array, noise: Array, temperature: Any, straight_through: bool) -> Array:
    """Return relaxed bits at logistic noise."""
    soft = jax.nn.sigmoid((logits + noise) / temperature)
    hard = (logits + noise > 0).astype(soft.dtype)
    return soft + lax.stop_gradient(hard - soft) if straight_through else soft


def soft_states(logits: Array, noise: Array, temperature: Any, straight_through: bool) -> Array:
    """Return relaxed one-hot vectors at Gumbel noise."""
    soft = jax.nn.softmax((logits + noise) / temperature, axis=-1)
    hard = jax.nn.one_hot(jnp.argmax(logits + noise, -1), logits.shape[-1], dtype=soft.dtype)
    return soft + lax.stop_gradient(hard - soft) if straight_through else soft


def relaxed(fn: dist.Distribution, temperature: Any, straight_through: bool) -> Any:
    """Return the relaxed distribution of bits or one-hot vectors, None of any other."""
    own = base(fn)
    if isinstance(own, OneHots):
        logits = jnp.broadcast_to(own.logits, (*fn.batch_shape, *own.logits.shape[-2:]))
        return RelaxedOneHots(logits, temperature, straight_through)
    if not isinstance(own, dist.BernoulliLogits | dist.BernoulliProbs):
        return None
    logits = jnp.broadcast_to(jnp.asarray(own.logits), fn.shape())
    return RelaxedBits(logits, temperature, straight_through).to_event(fn.event_dim)


def divergence(q: Any, p: Any) -> Array | None:
    """Return KL(q || p) of two distributions of bits or of one-hot vectors, None of any others."""
    bits = dist.BernoulliLogits, dist.BernoulliProbs, RelaxedBits
    while isinstance(q, dist.ExpandedDistribution):
        q = q.base_dist
    while isinstance(p, dist.ExpandedDistribution):
        p = p.base_dist
    if isinstance(q, OneHots) and isinstance(p, OneHots):
        log_q, log_p = q.log_probs, p.log_probs
        return jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=(-1, -2))
    if not isinstance(q, bits) or not isinstance(p, bits):
        return None
    ours, theirs = jnp.asarray(q.logits), jnp.asarray(p.logits)
    total = jax.nn.softplus(theirs) - jax.nn.softplus(ours)
    return jax.nn.sigmoid(ours) * (ours - theirs) + total
