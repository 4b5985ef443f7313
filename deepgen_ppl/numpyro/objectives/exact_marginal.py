"""The evidence lower bound with discrete latents summed out exactly: maximum likelihood alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float, Int

from deepgen_ppl import checks
from deepgen_ppl.numpyro import marginal
from deepgen_ppl.numpyro.objectives.elbo import ELBO, Aux, Params
from deepgen_ppl.numpyro.program import Inputs, Pair


@dataclass(frozen=True)
class ExactMarginal:
    r"""The negative log evidence of a model whose latents are discrete, however many there are.

    $$\mathcal L = -\log \sum_z p(x, z)$$

    With a guide over the continuous latents it is the negative evidence lower bound with the
    discrete ones summed out, $-\mathbb E_q[\log \sum_z p(x, z, u) - \log q(u)]$. Discrete latents
    have to be absent from the guide. Gradients reach all parameters, as those of any other loss.

    Args:
        num_particles: draws of the continuous latents per step.

    Raises:
        ValueError: `num_particles` is not positive.

    Cost:
        Tables of all terms and one pass of `exact` through them, per particle and step.

    References:
        Darwiche: A differential approach to inference in Bayesian networks. J. ACM 50, 2003.

    Example:
        >>> ExactMarginal()
        ExactMarginal(num_particles=1)
    """

    num_particles: int = 1
    enumerated = True

    def __post_init__(self) -> None:
        checks.check_particles(self.num_particles, None)

    def check(self, pair: Pair, batch_size: int | None) -> None:
        """Refuse latents that are neither discrete nor the guide's, and discrete ones of the guide.

        Raises:
            ValueError: naming them.
        """
        latents = {name: site.is_discrete for name, site in pair.model.latents.items()}
        checks.check_summed(latents, () if pair.guide is None else pair.guide.sites)

    def prepare(
        self, pair: Pair, params: Mapping[str, Any], data: Inputs, batch_size: int | None
    ) -> None:
        """Read how the model is summed out, before anything is compiled.

        Raises:
            ValueError: with `batch_size`, its discrete latents join rows.
        """
        marginal.prepare(pair.model, params, data, batch_size)
        size = data.num_rows if batch_size is None else batch_size
        sources = marginal.prepared(pair.model, size)
        if batch_size is not None and sources is not None:
            checks.check_apart(sources.joins, batch_size)

    def __call__(
        self,
        pair: Pair,
        params: Params,
        inputs: Inputs,
        rows: Int[Array, " B"] | None,
        key: Array,
    ) -> tuple[Float[Array, ""], Aux]:
        """Return the loss (its gradient is the bound's) and the new mutable state."""
        return ELBO(self.num_particles)(pair, params, inputs, rows, key)
