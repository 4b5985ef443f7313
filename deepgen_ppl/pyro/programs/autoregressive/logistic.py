"""Mixtures of logistic distributions cut into levels, as a native distribution."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from deepgen_ppl import flow_checks
from deepgen_ppl.pyro.distributions import level_log_prob, nearest_level


class DiscretizedLogisticMixture(TorchDistribution):
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
        >>> loc, log_scale = torch.tensor([-0.5, 0.3]), torch.tensor([-1.0, -2.0])
        >>> mixture = DiscretizedLogisticMixture(torch.zeros(2), loc, log_scale, 8)
        >>> round(mixture.log_prob(torch.arange(8.0)).exp().sum().item(), 4)
        1.0
    """

    arg_constraints: Any = {  # noqa: RUF012
        "logits": constraints.real_vector,
        "loc": constraints.real_vector,
        "log_scale": constraints.real_vector,
    }
    has_rsample = False

    def __init__(
        self,
        logits: Float[Tensor, "*batch components"],
        loc: Float[Tensor, "*batch components"],
        log_scale: Float[Tensor, "*batch components"],
        levels: int = 256,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.levels = flow_checks.whole("levels", levels, 2)
        self.logits, self.loc, self.log_scale = torch.broadcast_tensors(logits, loc, log_scale)
        super().__init__(self.loc.shape[:-1], validate_args=validate_args)

    @property
    def support(self) -> Any:  # type: ignore[override]
        """Whole numbers below L."""
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretizedLogisticMixture:
        """Return the distribution of a wider batch shape.

        Args:
            batch_shape: the new batch shape.
            _instance: not used.
        """
        shape = (*batch_shape, self.loc.shape[-1])
        parts = (part.expand(shape) for part in (self.logits, self.loc, self.log_scale))
        return DiscretizedLogisticMixture(*parts, levels=self.levels, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability of a level."""
        if self._validate_args:
            self._validate_sample(value)
        found = level_log_prob(value[..., None], self.loc, self.log_scale.exp(), self.levels)
        return torch.logsumexp(self.logits.log_softmax(-1) + found, -1)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Return levels.

        Args:
            sample_shape: shape of independent draws.
        """
        with torch.no_grad():
            shape = (*sample_shape, *self.batch_shape)
            component = torch.distributions.Categorical(logits=self.logits).sample(sample_shape)
            u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            return self.level(component, torch.logit(u, torch.finfo(u.dtype).tiny))

    def level(self, component: Tensor, noise: Tensor) -> Tensor:
        """Return the level nearest to a standard logistic number of a component."""
        parts = (a.expand(*component.shape, a.shape[-1]) for a in (self.loc, self.log_scale))
        loc, log_scale = (torch.gather(a, -1, component[..., None])[..., 0] for a in parts)
        return nearest_level(loc + log_scale.exp() * noise, self.levels)
