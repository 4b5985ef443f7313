"""The product of experts: densities of different families multiplied, and taken to powers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import experts as checks
from deepgen_ppl import normalising
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.pyro.programs.energy import experts as experts_
from deepgen_ppl.pyro.programs.energy.ready import Energy


class ProductOfExperts(Energy):
    r"""A product of densities of the same values, each to a power.

    \[ \log p^*(x) = \sum_k \beta_k \log p_k(x), \qquad Z = \int \prod_k p_k(x)^{\beta_k} \, dx \]

    An expert may be any ready energy (whose own log Z cancels), any native distribution, held as it
    is, or any module that gives a distribution where it is called: a flow, an autoregressive
    module, a mixture of experts. Where any expert says no, the product does, so it lies in the
    intersection. One expert with a power is that density tempered, or turned round.

    It is a ready energy: trained by `dg.contrastive` (or the other verbs), drawn from by
    `dg.mcmc(product.program, None)`; `dg.log_z` lists the states where entries have finitely many
    values and there are up to 2^18 states, and anneals from the base otherwise.

    Args:
        experts: the experts, whose event shapes are equal and whose values are of one kind.
        powers: the power of each, one where None.
        base: the distribution where chains and annealing begin, which does not change the density;
            by default the first normalised expert (entries with finitely many values: the first
            whose entries are independent, or the even distribution).

    Raises:
        TypeError: something that is no expert. ValueError: no expert, event shapes that differ,
            discrete ones beside continuous ones, or powers that are no numbers.

    Cost:
        The sum of the experts'.

    References:
        Hinton: Training products of experts by minimizing contrastive divergence. Neural
        Computation 14(8), 2002. https://doi.org/10.1162/089976602760128018

        Du, Li, Mordatch: Compositional visual generation with energy based models. NeurIPS 2020.
        https://arxiv.org/abs/2004.06030

    Example:
        >>> import deepgen_ppl.pyro as dg, pyro.distributions as dist
        >>> wide = dist.Normal(0.0, torch.tensor(2.0)).expand([2]).to_event(1)
        >>> outputs = dg.autoregressive.GaussianMixture(2)
        >>> chained = dg.autoregressive.MADE(2, hidden=(16,), output=outputs)
        >>> product = ProductOfExperts([chained, dg.flows.RealNVP(2, hidden=(16,)), wide])
        >>> product.unnormalised_log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    log_z: Evidence | None

    def __init__(
        self, experts: Sequence[Any], *, powers: Sequence[float] | None = None, base: Any = None
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.experts = experts_.wrapped(experts, name)
        self.powers = checks.check_powers(powers, len(self.experts))
        self.start = None if base is None else experts_.Held(base)
        self.log_z = None
        found = [experts_.base_of(e) for e in self.experts]
        found += [] if base is None else [base]
        checks.check_shapes(
            [tuple(d.event_shape) for d in found], [tuple(d.batch_shape) for d in found], name
        )
        checks.check_kinds([bool(d.support.is_discrete) for d in found], name)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return tuple(experts_.base_of(self.experts[0]).event_shape)

    def base(self) -> Any:
        """Return the distribution where chains and annealing begin."""
        return experts_.start_of(self.experts) if self.start is None else self.start()

    def unnormalised_log_prob(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch"]:
        """Return the log density but for log Z.

        Args:
            x: values.
        """
        x = experts_.as_value(x)
        parts = zip(self.powers, self.experts, strict=True)
        found: Any = sum(power * experts_.log_density(expert, x) for power, expert in parts)
        return found

    def exact_log_z(self) -> Evidence | None:
        """Return log Z where there are finitely many values, few enough to be listed, else None."""
        values = experts_.values_of(self.base().support)
        if values is None or not checks.is_listed(len(values), self.event_shape):
            return None
        with torch.no_grad():
            found = checks.summed(
                lambda x: self.unnormalised_log_prob(torch.as_tensor(x)).cpu().numpy(),
                values,
                self.event_shape,
            )
        return normalising.exact_evidence(found, "enumeration")
