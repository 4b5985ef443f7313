"""NumPyro's own ELBO objects as objectives, with minibatches scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from numpyro.infer import ELBO as NumPyroELBO
from numpyro.infer import RenyiELBO, TraceEnum_ELBO

from deepgen_ppl.numpyro.handlers import refuse_scans
from deepgen_ppl.numpyro.objectives.elbo import ELBO, Aux, Params
from deepgen_ppl.numpyro.objectives.enumerated import EnumeratedELBO
from deepgen_ppl.numpyro.objectives.exact_marginal import ExactMarginal
from deepgen_ppl.numpyro.objectives.relaxed import RelaxedELBO
from deepgen_ppl.numpyro.objectives.renyi import Renyi
from deepgen_ppl.numpyro.program import Inputs, Pair, scaled_call


@dataclass(frozen=True)
class Native:
    """An ELBO object of NumPyro; each site of a minibatch is scaled by N / B.

    Args:
        elbo: the object, for example `numpyro.infer.TraceMeanField_ELBO()`.
    """

    elbo: NumPyroELBO

    @property
    def enumerated(self) -> bool:
        """Whether it sums out discrete latents that the guide lacks."""
        return isinstance(self.elbo, TraceEnum_ELBO)

    def check(self, pair: Pair, batch_size: int | None) -> None:
        """Refuse minibatches where the bound is no sum over rows.

        Raises:
            ValueError: as said.
        """
        if batch_size is None:
            return
        several = getattr(self.elbo, "multi_sample_guide", False)
        if isinstance(self.elbo, RenyiELBO) or several:
            raise ValueError(
                f"batch_size={batch_size}: {type(self.elbo).__name__} takes the logarithm of a "
                "mean over whole batches, which is no sum over rows. Use dg.IWAE() or dg.Renyi(), "
                "which are row by row, or drop batch_size."
            )

    def __call__(
        self,
        pair: Pair,
        params: Params,
        inputs: Inputs,
        rows: Int[Array, " B"] | None,
        key: Array,
    ) -> tuple[Float[Array, ""], Aux]:
        """Return the loss and the new mutable state."""
        model = scaled_call(pair.model, inputs, rows)
        model = refuse_scans(model) if self.enumerated else model
        guide = _nothing if pair.guide is None else scaled_call(pair.guide, inputs, rows)
        names = {name for program in pair.programs for name in program.state}
        values = dict(params)
        if not names:
            return _sum(self.elbo.loss(key, values, model, guide)), Aux({})
        found = self.elbo.loss_with_mutable_state(key, values, model, guide)
        state = found["mutable_state"] or {name: params[name] for name in names}
        return _sum(found["loss"]), Aux(dict(state))


def _nothing() -> None:
    """Be the guide of a model without latents."""


def _sum(loss: Any) -> Array:
    terms = loss.values() if isinstance(loss, dict) else (loss,)  # by site with sum_sites=False
    return jnp.sum(jnp.stack([jnp.asarray(term) for term in terms]))


def as_objective(loss: Any) -> Any:
    """Return an objective from None (the ELBO), one of ours, or an ELBO object of NumPyro.

    Raises:
        TypeError: `loss` is none of these.
    """
    if loss is None:
        return ELBO()
    if isinstance(loss, ELBO | EnumeratedELBO | ExactMarginal | RelaxedELBO | Renyi | Native):
        return loss
    if isinstance(loss, NumPyroELBO):
        return Native(loss)
    hint = f"{loss.__name__}()" if isinstance(loss, type) else "dg.ELBO()"
    raise TypeError(
        "loss must be dg.ELBO, dg.IWAE, dg.Renyi, dg.ExactMarginal or an ELBO object of NumPyro, "
        f"got {loss!r}. Pass an object, for example {hint}."
    )
