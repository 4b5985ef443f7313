"""The evidence lower bound with the guide's discrete latents summed over, without any noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepgen_ppl import objective_checks
from deepgen_ppl.pyro.enumeration import states, summed, weigh_at
from deepgen_ppl.pyro.objectives.elbo import Params, touches_shared
from deepgen_ppl.pyro.program import Pair, several


@dataclass(frozen=True)
class EnumeratedELBO:
    r"""The negative evidence lower bound, the discrete latents of the guide summed over.

    $$\mathcal L = \sum_z q(z \mid x)\, \mathbb E_{q(u \mid z, x)}
      \bigl[\log p(x, z, u) - \log q(z, u \mid x)\bigr]$$

    for discrete z and continuous u. The sum over z is exact, of all joint states of a row, so value
    and gradient have no noise but that of the draws of u. It takes any model and guide with
    discrete sites in both; discrete latents that a guide lacks are those of `ExactMarginal`.

    Args:
        num_particles: draws of the continuous latents per step.
        max_states: the greatest number of joint states of a row.

    Raises:
        ValueError: no such numbers; at a fit, no discrete latents in the guide, more joint states
            than `max_states`, discrete latents of rows beside ones that rows share, or continuous
            draws that carry no gradient.

    Cost:
        A pass through model and guide for every joint state and particle.

    References:
        Kingma, Rezende, Mohamed, Welling: Semi-supervised learning with deep generative models.
        NeurIPS 2014. https://arxiv.org/abs/1406.5298

    Example:
        >>> EnumeratedELBO(max_states=64)
        EnumeratedELBO(num_particles=1, max_states=64)
    """

    num_particles: int = 1
    max_states: int = 1024

    def __post_init__(self) -> None:
        objective_checks.check_particles(self.num_particles)
        objective_checks.check_most(self.max_states)

    @property
    def traceable(self) -> bool:
        """Whether it can run as one traced graph."""
        return True

    def check(self, pair: Pair, batch_size: int | None) -> None:
        """Refuse pairs without discrete latents to sum over, or with draws that cannot be followed.

        Raises:
            ValueError: as said.
        """
        local, shared = summed(pair)
        sites = {} if pair.guide is None else pair.guide.latents
        scored = [name for name, site in sites.items() if not site.reparametrised]
        others = [name for name in scored if name not in (*local, *shared)]
        objective_checks.check_summable(local, shared, others, touches_shared(pair))

    def __call__(
        self, pair: Pair, params: Params, data: Sequence[Any], rows: Int[Tensor, " B"] | None
    ) -> Float[Tensor, ""]:
        """Return the loss; its gradient is the bound's."""
        local, _ = summed(pair)
        scale = 1.0 if rows is None else (pair.num_rows or 1) / len(rows)
        fixed = states(pair, params, data, rows, self.max_states)
        count = len(next(iter(fixed.values())))

        def at(_: Any, one: dict[str, Tensor]) -> tuple[Tensor, ...]:
            return weigh_at(pair, params, one, data, rows)

        bounds = []
        for _ in range(self.num_particles):
            w_rows, w_shared, q_rows, q_shared = several(pair, at, count, fixed)
            if local:
                bounds.append(w_shared[0] + scale * torch.sum(q_rows.exp() * w_rows))
            else:
                total = w_shared + scale * w_rows.sum(-1)
                bounds.append(torch.sum(q_shared.exp() * total))
        return -torch.mean(torch.stack(bounds))
