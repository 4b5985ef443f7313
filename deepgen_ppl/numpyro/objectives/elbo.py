"""The evidence lower bound: the mean log weight of draws from the guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float, Int

from deepgen_ppl.numpyro.program import Inputs, Pair, Weights, log_weights

Params = dict[str, Any]


class Aux(NamedTuple):
    """What an objective returns beside its loss: the new values of mutable state."""

    state: dict[str, Any]


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

    def check(self, pair: Pair, batch_size: int | None) -> None:
        """Accept every pair: the bound is a sum over rows."""

    def __call__(
        self,
        pair: Pair,
        params: Params,
        inputs: Inputs,
        rows: Int[Array, " B"] | None,
        key: Array,
    ) -> tuple[Float[Array, ""], Aux]:
        """Return the loss (its gradient is the bound's) and the new mutable state."""
        weights = particles(pair, params, inputs, rows, key, self.num_particles)
        bound = jnp.mean(weights.shared + weights.scale * jnp.sum(weights.rows, axis=-1))
        if pair.scored:
            bound = bound + _score(pair, weights)
        return -bound, Aux(jax.tree.map(lambda leaf: leaf[0], weights.state))


def particles(
    pair: Pair,
    params: Params,
    inputs: Inputs,
    rows: Int[Array, " B"] | None,
    key: Array,
    num_particles: int,
    hold_shared: bool = False,
) -> Weights:
    """Return the weights of several draws; every array has a leading axis of particles.

    Args:
        pair: model and guide.
        params: constrained parameters and mutable state.
        inputs: inputs at all rows.
        rows: rows of the minibatch, None for all.
        key: seeds the draws.
        num_particles: number of draws.
        hold_shared: draw the shared latents once and the local ones for each particle.
    """
    scale = 1.0 if rows is None else inputs.num_rows / rows.shape[0]

    def draw(key: Any) -> Weights:
        found = log_weights(pair, params, inputs, rows, key=key)
        return found._replace(scale=0.0)  # a constant: kept out of the batch

    if num_particles == 1:
        one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], draw(particle_keys(key, 1)[0]))
        return one._replace(scale=scale)
    if hold_shared:
        shared, local = random.split(key)
        keys = random.split(local, num_particles)
        return jax.vmap(lambda k: draw((shared, k)))(keys)._replace(scale=scale)
    return jax.vmap(draw)(particle_keys(key, num_particles))._replace(scale=scale)


def particle_keys(key: Array, num_particles: int) -> Array:
    """Return one key per particle."""
    return key[None] if num_particles == 1 else random.split(key, num_particles)


def touches_shared(pair: Pair) -> bool:
    """Tell whether terms outside the data plates may depend on draws inside them."""
    return any(program.outside for program in pair.programs)


def leave_one_out(values: Array) -> Array:
    """Return the mean of the other particles along axis 0; zero for a single one."""
    count = values.shape[0]
    return (jnp.sum(values, axis=0) - values) / (count - 1) if count > 1 else jnp.zeros_like(values)


def _score(pair: Pair, weights: Weights) -> Array:
    total = weights.shared + weights.scale * jnp.sum(weights.rows, axis=-1)
    row = weights.scale * weights.rows
    if touches_shared(pair):
        row = row + weights.shared[:, None]
    shared_cost = lax.stop_gradient(total - leave_one_out(total))
    row_cost = lax.stop_gradient(row - leave_one_out(row))
    shared, local = weights.score_shared, weights.score_rows
    surrogate = shared_cost * shared + jnp.sum(row_cost * local, axis=-1)
    return jnp.mean(surrogate - lax.stop_gradient(surrogate))
