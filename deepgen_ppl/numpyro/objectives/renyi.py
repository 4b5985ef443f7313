"""The variational Rényi bound: a power mean of several weights per datum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from deepgen_ppl import objective_checks
from deepgen_ppl.numpyro.objectives.elbo import (
    Aux,
    Params,
    leave_one_out,
    particle_keys,
    particles,
    touches_shared,
)
from deepgen_ppl.numpyro.parts import propose, scaled_gradients, weigh
from deepgen_ppl.numpyro.program import Inputs, Pair, Weights
from deepgen_ppl.numpyro.unconstrained import row_axis


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
        estimator: "standard"; "dreg" (doubly reparametrised), which leaves the score of q out and
            weighs what each draw moves by \(\alpha \tilde w_k + (1 - \alpha) \tilde w_k^2\), where
            \(\tilde w_k\) are the normalised weights of the standard gradient: unbiased, and its
            signal does not drown in noise as K grows; or "stl" (sticking the landing), which leaves
            the score of q out without weighing again: biased where K > 1.

    Raises:
        ValueError: `alpha` is 1, `num_particles` is not positive, or the estimator is unknown.

    Cost:
        K passes through model and guide per step; "dreg" takes one more forward through the model
        and two through the guide, "stl" one through the guide.

    References:
        Li, Turner: Rényi divergence variational inference. 2016. https://arxiv.org/abs/1602.02311
        Tucker, Lawson, Gu, Maddison: Doubly reparameterized gradient estimators. 2018.
        https://arxiv.org/abs/1810.04152

    Example:
        >>> Renyi(alpha=0.5, num_particles=16)
        Renyi(alpha=0.5, num_particles=16, estimator='standard')
    """

    alpha: float = 0.0
    num_particles: int = 8
    estimator: str = "standard"

    def __post_init__(self) -> None:
        objective_checks.check_particles(self.num_particles)
        objective_checks.check_estimator(self.estimator)
        if self.alpha == 1:
            raise ValueError("alpha=1 is the limit ELBO: use dg.ELBO().")

    def check(self, pair: Pair, batch_size: int | None) -> None:
        """Refuse minibatches of a model without local latents: the bound is no sum over rows.

        Raises:
            ValueError: as said, or an estimator that the guide's draws do not allow.
        """
        if self.estimator != "standard":
            sites = {} if pair.guide is None else pair.guide.latents
            scored = [name for name, site in sites.items() if not site.reparametrised]
            objective_checks.check_reparametrised(self.estimator, pair.guide is not None, scored)
            if by_rows(pair) and pair.guide is not None:
                own = {n: row_axis(pair.guide, site) is not None for n, site in sites.items()}
                shared = [name for name in sites if not own[name]]
                local = [name for name in sites if own[name]]
                objective_checks.check_one_kind(self.estimator, shared, local)
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
        if self.estimator == "standard":
            count = self.num_particles
            weights = particles(pair, params, inputs, rows, key, count, hold_shared=local)
        else:
            weights = self._followed(pair, params, inputs, rows, key, local)
        if local:
            bounds = self._mean(weights.rows)
            bound = weights.shared[0] + weights.scale * jnp.sum(bounds)
        else:
            total = weights.shared + weights.scale * jnp.sum(weights.rows, axis=-1)
            bound = self._mean(total)
        if pair.scored and self.estimator == "standard":
            if local:
                gain = weights.scale * self._gain(weights.rows) * weights.score_rows
                surrogate = jnp.sum(gain) + lax.stop_gradient(bound) * weights.score_shared[0]
            else:
                score = weights.score_shared + jnp.sum(weights.score_rows, axis=-1)
                surrogate = jnp.sum(self._gain(total) * score)
            bound = bound + surrogate - lax.stop_gradient(surrogate)
        return -bound, Aux(jax.tree.map(lambda leaf: leaf[0], weights.state))

    def _followed(self, pair: Pair, params: Params, inputs: Inputs, rows: Any, key: Array,
                  local: bool) -> Weights:  # fmt: skip
        """Return weights whose gradient in the guide's parameters is that of the draws alone."""
        count = self.num_particles
        keys = particle_keys(key, count)
        scale = 1.0 if rows is None else inputs.num_rows / rows.shape[0]

        def weighed(draws: Any, key: Array) -> Any:
            return weigh(pair, params, draws, inputs, rows, key)

        draws, state = jax.vmap(lambda k: propose(pair, params, inputs, rows, k))(keys)
        if self.estimator == "dreg":
            found = jax.vmap(weighed)(lax.stop_gradient(draws), keys)
            log_w = found[0] if local else found[1] + scale * jnp.sum(found[0], axis=-1)
            share = jax.nn.softmax((1.0 - self.alpha) * lax.stop_gradient(log_w), axis=0)
            factor = self.alpha + (1.0 - self.alpha) * share
            draws = jax.vmap(lambda d, f: scaled_gradients(pair, d, f))(draws, factor)
        row, shared, more = jax.vmap(weighed)(draws, keys)
        blank = jnp.zeros(count)
        return Weights(row, shared, scale, blank, blank, {}, {**state, **more}, blank, {})

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
