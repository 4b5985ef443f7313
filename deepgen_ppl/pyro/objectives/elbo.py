"""The evidence lower bound: the mean log weight of draws from the guide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepgen_ppl.pyro.program import Pair, Weights, particles

Params = Mapping[str, Tensor]


@dataclass(frozen=True)
class ELBO:
    r"""The negative evidence lower bound, right for any guide.

    $$\mathcal L = \mathbb E_{q}\Bigl[\log p(x, z) - \log q(z)\Bigr] \le \log p(x)$$

    Draws that carry no gradient (discrete ones among them) enter by the score function: each is
    weighted by the terms that may depend on it, against the mean of the other particles where there
    are several.

    Args:
        num_particles: draws of the latents per step.

    Raises:
        ValueError: `num_particles` is not positive.

    Cost:
        `num_particles` passes through model and guide per step.

    References:
        Kingma, Welling: Auto-encoding variational Bayes. 2014. https://arxiv.org/abs/1312.6114
        Ranganath, Gerrish, Blei: Black box variational inference. 2014.
        https://arxiv.org/abs/1401.0118

    Example:
        >>> ELBO(num_particles=4)
        ELBO(num_particles=4)
    """

    num_particles: int = 1

    def __post_init__(self) -> None:
        if self.num_particles < 1:
            raise ValueError(f"num_particles must be positive, got {self.num_particles}.")

    @property
    def traceable(self) -> bool:
        """Whether it can run as one traced graph."""
        return True

    def check(self, pair: Pair, batch_size: int | None) -> None:
        """Accept every pair: the bound is a sum over rows."""

    def __call__(
        self, pair: Pair, params: Params, data: Sequence[Any], rows: Int[Tensor, " B"] | None
    ) -> Float[Tensor, ""]:
        """Return the loss; its gradient is the bound's."""
        weights = particles(pair, params, data, rows, self.num_particles)
        bound = torch.mean(weights.total)
        if pair.scored:
            bound = bound + _score(pair, weights)
        return -bound


def touches_shared(pair: Pair) -> bool:
    """Tell whether terms outside the data plates may depend on draws inside them."""
    return any(program.touches_shared for program in pair.programs)


def leave_one_out(values: Tensor) -> Tensor:
    """Return the mean of the other particles along axis 0; zero for a single one."""
    count = len(values)
    return (values.sum(0) - values) / (count - 1) if count > 1 else torch.zeros_like(values)


def _score(pair: Pair, weights: Weights) -> Tensor:
    total = weights.total
    row = weights.scale * weights.rows
    if touches_shared(pair):
        row = row + weights.shared[:, None]
    shared_cost = (total - leave_one_out(total)).detach()
    row_cost = (row - leave_one_out(row)).detach()
    local, shared = weights.score_rows, weights.score_shared
    if local is None or shared is None:
        return torch.zeros_like(total.sum())
    surrogate = shared_cost * shared + torch.sum(row_cost * local, -1)
    return torch.mean(surrogate - surrogate.detach())
