"""The variational Rényi bound: a power mean of several weights per datum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepgen_ppl.pyro.objectives.elbo import Params, leave_one_out, touches_shared
from deepgen_ppl.pyro.program import Pair, particles


@dataclass(frozen=True)
class Renyi:
    r"""The negative Rényi bound with K particles, row by row where latents are local.

    $$\mathcal L_\alpha = \sum_i \frac{1}{1 - \alpha} \log \frac1K \sum_{k} w_{ik}^{1 - \alpha}$$

    With latents in the data plate each row i has its own K draws (latents outside are drawn once),
    so the bound is a sum over rows and minibatches of it are unbiased. Without them the K weights
    are those of the whole data.

    Args:
        alpha: order, any number but 1; 0 gives `IWAE`.
        num_particles: draws K of the latents per step.

    Raises:
        ValueError: `alpha` is 1, or `num_particles` is not positive.

    Cost:
        K passes through model and guide per step.

    References:
        Li, Turner: Rényi divergence variational inference. 2016. https://arxiv.org/abs/1602.02311

    Example:
        >>> Renyi(alpha=0.5, num_particles=16)
        Renyi(alpha=0.5, num_particles=16)
    """

    alpha: float = 0.0
    num_particles: int = 8

    def __post_init__(self) -> None:
        if self.num_particles < 1:
            raise ValueError(f"num_particles must be positive, got {self.num_particles}.")
        if self.alpha == 1:
            raise ValueError("alpha=1 is the limit ELBO: use dg.ELBO().")

    @property
    def traceable(self) -> bool:
        """Whether it can run as one traced graph."""
        return True

    def check(self, pair: Pair, batch_size: int | None) -> None:
        """Refuse minibatches of a model without local latents: the bound is no sum over rows.

        Raises:
            ValueError: as said.
        """
        if batch_size is not None and not by_rows(pair):
            raise ValueError(
                f"batch_size={batch_size}: the model has no latents in the data plate, so a bound "
                "of "
                f"{self.num_particles} particles is no sum over rows. Use dg.ELBO(), or drop "
                "batch_size."
            )

    def __call__(
        self, pair: Pair, params: Params, data: Sequence[Any], rows: Int[Tensor, " B"] | None
    ) -> Float[Tensor, ""]:
        """Return the loss; its gradient is the bound's."""
        local = by_rows(pair)
        weights = particles(pair, params, data, rows, self.num_particles, hold_shared=local)
        total = weights.total
        if local:
            bound = weights.shared[0] + weights.scale * self._mean(weights.rows).sum()
        else:
            bound = self._mean(total)
        if weights.score_rows is not None and weights.score_shared is not None:
            if local:
                gain = weights.scale * self._gain(weights.rows) * weights.score_rows
                surrogate = gain.sum() + bound.detach() * weights.score_shared[0]
            else:
                score = weights.score_shared + weights.score_rows.sum(-1)
                surrogate = torch.sum(self._gain(total) * score)
            bound = bound + surrogate - surrogate.detach()
        return -bound

    def _mean(self, log_weights: Float[Tensor, "particle *B"]) -> Float[Tensor, "*B"]:
        power = 1.0 - self.alpha
        return (torch.logsumexp(power * log_weights, 0) - math.log(self.num_particles)) / power

    def _gain(self, log_weights: Float[Tensor, "particle *B"]) -> Float[Tensor, "particle *B"]:
        # The bound less what it would be with particle k at the mean of the others (VIMCO,
        # Mnih and Rezende 2016): it does not depend on draw k, so the gradient stays unbiased.
        log_weights = log_weights.detach()
        bound = self._mean(log_weights)
        if self.num_particles == 1:
            return bound[None]
        others = leave_one_out(log_weights)
        held = torch.eye(self.num_particles, dtype=torch.bool, device=log_weights.device)
        held = held.reshape(held.shape + (1,) * (log_weights.dim() - 1))
        without = [self._mean(torch.where(keep, others, log_weights)) for keep in held]
        return bound - torch.stack(without)


def by_rows(pair: Pair) -> bool:
    """Tell whether the bound is one per row: some latent is local and none leaks outside."""
    local = any(site.row_plate is not None for site in pair.model.latents.values())
    return local and not touches_shared(pair)
