"""Distributions that the language lacks, as native as its own."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional

LEAST_LOG_SCALE = -7.0
"""Log scales of discretized logistics are not below it, on a scale from -1 to 1."""

ContinuousBernoulli = dist.ContinuousBernoulli


class DiscretizedLogistic(dist.TorchDistribution):
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
        >>> fn = DiscretizedLogistic(torch.zeros(()), torch.zeros(()), 4)
        >>> bool(torch.isclose(fn.log_prob(torch.arange(4.0)).exp().sum(), torch.ones(())))
        True
    """

    arg_constraints: Any = {"loc": constraints.real, "log_scale": constraints.real}  # noqa: RUF012

    def __init__(
        self,
        loc: Tensor,
        log_scale: Tensor,
        levels: int = 256,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretizedLogistic:
        """Return the distribution of a larger batch."""
        shape = torch.Size(batch_shape)
        return DiscretizedLogistic(
            self.loc.expand(shape), self.log_scale.expand(shape), self.levels, validate_args=False
        )

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:  # type: ignore[override]
        """The levels."""
        return constraints.integer_interval(0, self.levels - 1)

    @property
    def scale(self) -> Tensor:
        """The scale s."""
        return torch.exp(self.log_scale.clamp(min=LEAST_LOG_SCALE))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability of levels."""
        if self._validate_args:
            self._validate_sample(value)
        return level_log_prob(value, self.loc, self.scale, self.levels)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Return draws, whole numbers as floats."""
        with torch.no_grad():
            shape = (*sample_shape, *self.batch_shape)
            u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            noise = torch.logit(u, torch.finfo(u.dtype).tiny)
            return nearest_level(self.loc + self.scale * noise, self.levels)

    @property
    def mean(self) -> Tensor:
        """The mean level: the sum of the probabilities of more than each level."""
        edges = (2.0 * torch.arange(self.levels - 1) + 1.0) / (self.levels - 1) - 1.0
        total = torch.zeros_like(self.loc)
        for edge in edges.tolist():
            total = total + torch.sigmoid((self.loc - edge) / self.scale)
        return total


def level_log_prob(
    value: Tensor, loc: Tensor, scale: Tensor, levels: int
) -> Float[Tensor, "*batch"]:
    """Return the log probability of a level under a logistic cut into levels between -1 and 1.

    Args:
        value: the level; below the first one it counts as the first, past the last one as the last.
        loc: location of the logistic.
        scale: its scale.
        levels: number of levels.

    Example:
        >>> round(level_log_prob(torch.tensor(1), torch.zeros(()), torch.ones(()), 3).item(), 4)
        -1.4068
    """
    half = 1.0 / (levels - 1)
    centred = value * (2.0 * half) - 1.0 - loc
    above, below = (centred + half) / scale, (centred - half) / scale
    first, last, zero = value <= 0, value >= levels - 1, loc.new_zeros(())
    inside = torch.where(first | last, zero, torch.log(-torch.expm1(-2.0 * half / scale)))
    left = torch.where(last, zero, functional.logsigmoid(above))
    return left + torch.where(first, zero, functional.logsigmoid(-below)) + inside


def nearest_level(x: Float[Tensor, "*batch"], levels: int) -> Float[Tensor, "*batch"]:
    """Return the level nearest to a number on the scale from -1, the first one, to 1, the last one.

    Args:
        x: the numbers.
        levels: number of levels.

    Example:
        >>> nearest_level(torch.tensor([-3.0, 0.1, 1.0]), 5).tolist()
        [0.0, 2.0, 4.0]
    """
    return torch.round((x + 1.0) * (0.5 * (levels - 1))).clamp(0, levels - 1)


class DiagonalMixture(dist.TorchDistribution):
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
        >>> fn = DiagonalMixture(torch.zeros(2), torch.zeros(2, 3), torch.ones(2, 3))
        >>> round(float(fn.log_prob(torch.zeros(3))), 4)
        -2.7568
    """

    arg_constraints: Any = {  # noqa: RUF012
        "logits": constraints.real_vector,
        "locs": constraints.independent(constraints.real, 2),
        "scales": constraints.independent(constraints.positive, 2),
    }
    support: Any = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        logits: Float[Tensor, "*batch K"],
        locs: Float[Tensor, "*batch K D"],
        scales: Float[Tensor, "*batch K D"],
        *,
        validate_args: bool | None = None,
    ) -> None:
        batch = torch.broadcast_shapes(logits.shape[:-1], locs.shape[:-2], scales.shape[:-2])
        self.logits = logits.expand(*batch, logits.shape[-1])
        self.locs = locs.expand(*batch, *locs.shape[-2:])
        self.scales = scales.expand(*batch, *scales.shape[-2:])
        super().__init__(batch, locs.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiagonalMixture:
        """Return the distribution of a larger batch."""
        shape = torch.Size(batch_shape)
        arrays = (self.logits, self.locs, self.scales)
        grown = (x.expand(*shape, *x.shape[len(self.batch_shape) :]) for x in arrays)
        return DiagonalMixture(*grown, validate_args=False)

    def _each(self, value: Tensor) -> Tensor:
        """Return the log density of each coordinate under each component."""
        scaled = (value[..., None, :] - self.locs) / self.scales
        return -0.5 * scaled**2 - torch.log(self.scales) - 0.5 * math.log(2.0 * math.pi)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        if self._validate_args:
            self._validate_sample(value)
        own = torch.log_softmax(self.logits, -1) + self._each(value).sum(-1)
        return torch.logsumexp(own, -1)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Return draws, which carry gradients."""
        shape, size = (*sample_shape, *self.batch_shape), self.locs.shape[-2]
        with torch.no_grad():
            u = torch.rand((*shape, size), dtype=self.locs.dtype, device=self.locs.device)
            gumbel = -torch.log(-torch.log(u.clamp(min=torch.finfo(u.dtype).tiny)))
            k = torch.argmax(self.logits + gumbel, -1)
            one = functional.one_hot(k, size).to(self.locs.dtype)[..., None]
            locs, scales = ((one * x).sum(-2) for x in (self.locs, self.scales))
            noise = torch.randn(locs.shape, dtype=locs.dtype, device=locs.device)
            z = locs + scales * noise
        below, slopes = self._distribution(z)
        moved = (below - below.detach())[..., None]
        return z - torch.linalg.solve_triangular(slopes.detach(), moved, upper=False)[..., 0]

    def _distribution(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distribution function of each coordinate given those before; slopes."""
        each = self._each(z)
        before = torch.cumsum(each, -1) - each
        weights = torch.softmax(self.logits[..., None] + before, -2)
        inside = torch.special.ndtr((z[..., None, :] - self.locs) / self.scales)
        found = (weights * inside).sum(-2)
        pull = -(z[..., None, :] - self.locs) / self.scales**2
        mean_pull = torch.einsum("...kd,...kj->...dj", weights, pull)
        slopes = torch.einsum("...kd,...kj->...dj", weights * inside, pull)
        slopes = torch.tril(slopes - found[..., None] * mean_pull, -1)
        density = (weights * torch.exp(each)).sum(-2)
        eye = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        return found, slopes + density[..., None] * eye

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return (torch.softmax(self.logits, -1)[..., None] * self.locs).sum(-2)

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate."""
        weights = torch.softmax(self.logits, -1)[..., None]
        return (weights * (self.locs**2 + self.scales**2)).sum(-2) - self.mean**2
