"""The variational Rényi bound: a power mean of several weights per datum."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from deepgen_ppl.numpyro.objectives.elbo import (
    Aux,
    Params,
    leave_one_out,
    particles,
    touches_shared,
)
from deepgen_ppl.numpyro.program import Inputs, Pair


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

    def check(self, pair: Pair, batch_size: int | None) -> None:
        """Refuse minibatches of a model without local latents: the bound is no sum over rows.

        Raises:
            ValueError: as said.
        """
        if batch_size is not None and not by_rows(pair):
            raise ValueError(
                f"batch_size={batch_size}: the model has no latents in the data plate, so a bound "
                f"of {self.num_particles} particles is no sum over rows. Use dg.ELBO(), or drop "
                "batch_size."
            )

    def __call__(
        self,
        pair: Pair,
        params: Params,
        inputs: Inputs,
        rows: Int[Array, " B"] | None,
        key: Array,
    ) -> tuple[Float[Array, ""], Aux]:
        """Return the loss (its gradient is the bound's) and the new mutable state."""
        local = by_rows(pair)
        weights = particles(pair, params, inputs, rows, key, self.num_particles, hold_shared=local)
        if local:
            bounds = self._mean(weights.rows)
            bound = weights.shared[0] + weights.scale * jnp.sum(bounds)
        else:
            total = weights.shared + weights.scale * jnp.sum(weights.rows, axis=-1)
            bound = self._mean(total)
        if pair.scored:
            if local:
                gain = weights.scale * self._gain(weights.rows) * weights.score_rows
                surrogate = jnp.sum(gain) + lax.stop_gradient(bound) * weights.score_shared[0]
            else:
                score = weights.score_shared + jnp.sum(weights.score_rows, axis=-1)
                surrogate = jnp.sum(self._gain(total) * score)
            bound = bound + surrogate - lax.stop_gradient(surrogate)
        return -bound, Aux(jax.tree.map(lambda leaf: leaf[0], weights.state))

    def _mean(self, log_weights: Float[Array, "K ..."]) -> Array:
        power = 1.0 - self.alpha
        return (logsumexp(power * log_weights, axis=0) - jnp.log(self.num_particles)) / power

    def _gain(self, log_weights: Float[Array, "K ..."]) -> Float[Array, "K ..."]:
        # The bound less what it would be with particle k at the mean of the others (VIMCO,
        # Mnih and Rezende 2016): it does not depend on draw k, so the gradient stays unbiased.
        bound = self._mean(log_weights)
        if self.num_particles == 1:
            return lax.stop_gradient(bound)[None]
        others = leave_one_out(log_weights)
        held = jnp.eye(self.num_particles, dtype=bool)
        held = held.reshape(held.shape + (1,) * (log_weights.ndim - 1))
        without = jax.vmap(lambda keep: self._mean(jnp.where(keep, others, log_weights)))(held)
        return lax.stop_gradient(bound - without)


def by_rows(pair: Pair) -> bool:
    """Tell whether the bound is one per row: some latent is local and none leaks outside."""
    plates = set(pair.model.data_plates)
    local = any(set(site.plates) & plates for site in pair.model.latents.values())
    return local and not touches_shared(pair)
