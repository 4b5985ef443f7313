"""Discrete latents whose draws can be followed: one-hot draws, and relaxed ones with gradients."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional

from deepgen_ppl.joint_states import grid


class OneHots(dist.TorchDistribution):
    r"""Several independent categorical variables, their one-hot vectors side by side.

    $$p(z) = \prod_v \prod_k \mathrm{softmax}(\ell_v)_k^{z_{vk}}$$

    Args:
        logits: unnormalised log probabilities, shape (*batch, variables, states).

    Example:
        >>> fn = OneHots(torch.zeros(2, 3))
        >>> tuple(fn.event_shape), round(fn.log_prob(fn.enumerate_support())[0].item(), 3)
        ((6,), -2.197)
    """

    arg_constraints: Any = {"logits": constraints.independent(constraints.real, 2)}  # noqa: RUF012
    support: Any = constraints.independent(constraints.boolean, 1)
    has_enumerate_support = True

    def __init__(self, logits: Tensor, *, validate_args: bool | None = None) -> None:
        self.logits = logits
        *batch, variables, states = logits.shape
        event = torch.Size((variables * states,))
        super().__init__(torch.Size(batch), event, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> OneHots:
        """Return the distribution of a larger batch."""
        return OneHots(self.logits.expand(*batch_shape, *self.logits.shape[-2:]))

    @property
    def log_probs(self) -> Float[Tensor, "*batch variables states"]:
        """Log probability of each state."""
        return functional.log_softmax(self.logits, -1)

    @property
    def mean(self) -> Float[Tensor, "*batch features"]:
        """Probability of each state, side by side."""
        return self.log_probs.exp().flatten(-2)

    @property
    def variance(self) -> Float[Tensor, "*batch features"]:
        """Variance of each entry."""
        return self.mean * (1.0 - self.mean)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Return one-hot draws."""
        shape = (*sample_shape, *self.logits.shape)
        noise = _gumbel(self.logits, shape)
        found = torch.argmax(self.logits + noise, -1)
        return _hot(found, self.logits).flatten(-2).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability; linear in the value, so that it takes relaxed ones too."""
        split = value.reshape(*value.shape[:-1], *self.logits.shape[-2:])
        return torch.sum(split * self.log_probs, (-1, -2))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all joint states, on a leading axis."""
        variables, states = self.logits.shape[-2:]
        hot = torch.eye(states, dtype=self.logits.dtype, device=self.logits.device)
        found = hot[torch.as_tensor(grid([states] * variables), device=hot.device)]
        found = found.reshape(-1, *(1,) * len(self.batch_shape), variables * states)
        return found.expand(len(found), *self.batch_shape, -1) if expand else found


class RelaxedBits(dist.TorchDistribution):
    r"""Bits relaxed to (0, 1), whose draws carry gradients; the log probability is that of bits.

    $$z = \sigma\bigl((\ell + \epsilon) / \tau\bigr), \qquad \epsilon \sim \mathrm{Logistic}(0, 1)$$

    Args:
        logits: log odds \(\ell\).
        temperature: \(\tau\).
        straight_through: whether draws are rounded, with the gradient of the relaxed ones.

    References:
        Maddison, Mnih, Teh: The Concrete distribution. ICLR 2017. https://arxiv.org/abs/1611.00712

    Example:
        >>> fn = RelaxedBits(torch.zeros(3), 0.5, True)
        >>> round(fn.log_prob(torch.ones(3)).sum().item(), 3)
        -2.079
    """

    arg_constraints: Any = {"logits": constraints.real}  # noqa: RUF012
    support: Any = constraints.real
    has_rsample = True

    def __init__(self, logits: Tensor, temperature: Any, straight_through: bool = False) -> None:
        self.logits, self.temperature = logits, temperature
        self.straight_through = straight_through
        super().__init__(logits.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> RelaxedBits:
        """Return the distribution of a larger batch."""
        logits = self.logits.expand(batch_shape)
        return RelaxedBits(logits, self.temperature, self.straight_through)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Return relaxed draws."""
        uniform = _uniform(self.logits, (*sample_shape, *self.batch_shape))
        noise = uniform.log() - torch.log1p(-uniform)
        return soft_bits(self.logits, noise, self.temperature, self.straight_through)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability of bits, linear in between."""
        return value * self.logits - functional.softplus(self.logits)


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
        >>> fn = RelaxedOneHots(torch.zeros(2, 3), 0.5)
        >>> round(fn.rsample().sum().item(), 3)
        2.0
    """

    support: Any = constraints.independent(constraints.real, 1)
    has_rsample = True

    def __init__(self, logits: Tensor, temperature: Any, straight_through: bool = False) -> None:
        self.temperature, self.straight_through = temperature, straight_through
        super().__init__(logits, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> RelaxedOneHots:
        """Return the distribution of a larger batch."""
        logits = self.logits.expand(*batch_shape, *self.logits.shape[-2:])
        return RelaxedOneHots(logits, self.temperature, self.straight_through)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Return relaxed draws."""
        noise = _gumbel(self.logits, (*sample_shape, *self.logits.shape))
        found = soft_states(self.logits, noise, self.temperature, self.straight_through)
        return found.flatten(-2)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Return relaxed draws without gradients."""
        return self.rsample(sample_shape).detach()


def soft_bits(logits: Tensor, noise: Tensor, temperature: Any, straight_through: bool) -> Tensor:
    """Return relaxed bits at logistic noise."""
    soft = torch.sigmoid((logits + noise) / temperature)
    hard = (logits + noise > 0).to(soft.dtype)
    return soft + (hard - soft).detach() if straight_through else soft


def soft_states(logits: Tensor, noise: Tensor, temperature: Any, straight_through: bool) -> Tensor:
    """Return relaxed one-hot vectors at Gumbel noise."""
    soft = torch.softmax((logits + noise) / temperature, -1)
    hard = _hot(torch.argmax(logits + noise, -1), soft)
    return soft + (hard - soft).detach() if straight_through else soft


def relaxed(fn: Any, temperature: Any, straight_through: bool) -> Any:
    """Return the relaxed distribution of bits or one-hot vectors, None of any other."""
    own = base(fn)
    if isinstance(own, OneHots):
        logits = own.logits.expand(*fn.batch_shape, *own.logits.shape[-2:])
        return RelaxedOneHots(logits, temperature, straight_through)
    if not isinstance(own, torch.distributions.Bernoulli):
        return None
    logits = own.logits.expand(fn.batch_shape + fn.event_shape)
    return RelaxedBits(logits, temperature, straight_through).to_event(fn.event_dim)


def base(fn: Any) -> Any:
    """Return a distribution below masks, expansions and independent dims."""
    while isinstance(fn, dist.ExpandedDistribution | dist.MaskedDistribution | dist.Independent):
        fn = fn.base_dist
    return fn


def divergence(q: Any, p: Any) -> Tensor | None:
    """Return KL(q || p) of two distributions of bits or of one-hot vectors, None of any others."""
    bits = torch.distributions.Bernoulli, RelaxedBits
    while isinstance(q, dist.ExpandedDistribution):
        q = q.base_dist
    while isinstance(p, dist.ExpandedDistribution):
        p = p.base_dist
    if isinstance(q, OneHots) and isinstance(p, OneHots):
        log_q, log_p = q.log_probs, p.log_probs
        return torch.sum(log_q.exp() * (log_q - log_p), (-1, -2))
    if not isinstance(q, bits) or not isinstance(p, bits):
        return None
    total = functional.softplus(p.logits) - functional.softplus(q.logits)
    return torch.sigmoid(q.logits) * (q.logits - p.logits) + total


def _uniform(like: Tensor, shape: Any) -> Tensor:
    tiny = torch.finfo(like.dtype).eps
    found = torch.rand(torch.Size(shape), dtype=like.dtype, device=like.device)
    return found.clamp(tiny, 1.0 - tiny)


def _gumbel(like: Tensor, shape: Any) -> Tensor:
    return -torch.log(-torch.log(_uniform(like, shape)))


def _hot(index: Tensor, like: Tensor) -> Tensor:
    states = torch.arange(like.shape[-1], device=like.device)
    return (index.unsqueeze(-1) == states).to(like.dtype)
