"""The evidence lower bound: the mean log weight of draws from the guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float, Int

from deepgen_ppl import objective_checks
from deepgen_ppl.numpyro.parts import Parts, beside, local_latents, parts, prior_draws, several
from deepgen_ppl.numpyro.program import Inputs, Pair, Weights, log_weights
from deepgen_ppl.schedules import Weight, at

Params = dict[str, Any]


class Aux(NamedTuple):
    """What an objective returns beside its loss.

    Attributes:
        state: the new values of mutable state.
        columns: what it tells of the step, by its `columns`.
    """

    state: dict[str, Any]
    columns: tuple[Array, ...] = ()


@dataclass(frozen=True)
class ELBO:
    r"""The negative evidence lower bound, right for any guide, and objectives made from its parts.

    $$\mathcal L = \mathbb E_{q}\Bigl[\log p(x \mid z)\Bigr]
    - \beta \sum_j \max\bigl(\lambda, \mathrm{KL}_j\bigr)
    - \alpha\, \mathrm{MMD}^2\bigl(q(z), p(z)\bigr)$$

    where \(\mathrm{KL}_j = \mathbb E_q[\log q(z_j) - \log p(z_j)]\) per datum. With the defaults
    (\(\beta = 1\), \(\lambda = \alpha = 0\)) it is the evidence lower bound; with others it
    is none, so `fit.history` has beside the "loss" the "bound" (the evidence lower bound of the
    same draws, per datum) and its "kl", and `validation_data` are judged by the bound.

    Draws that carry no gradient (discrete ones among them) enter by the score function: each is
    weighted by the terms that may depend on it, against the mean of the other particles where there
    are several.

    Args:
        num_particles: draws of the latents per step.
        kl: "sample" weighs the draw, log q(z) - log p(z); "analytic" takes the divergence in closed
            form at every latent for which the language has one, given the latents before it, and
            weighs the draw elsewhere.
        estimator: "standard", or "stl" (sticking the landing): the score of q, of mean zero, is
            left out of the gradient, whose variance vanishes as q approaches the posterior.
        beta: weight of the KL divergence, a number or a `KLAnnealing`. Below 1 it lets latents
            carry more, above 1 less.
        free_bits: nats \(\lambda\) per datum below which the divergence of a unit, averaged over
            the batch, costs no less: so no gradient pushes it to zero. Units are the elements of
            latents in a data plate that are independent under guide and prior, and whole sites
            where they are not.
        mmd: weight \(\alpha\) of the maximum mean discrepancy between the aggregate posterior and
            the prior, estimated without bias from pairs of rows with the inverse multiquadratic
            kernel \(C / (C + \lVert z - z' \rVert^2)\), C the mean squared distance of prior draws.
            With `beta` below 1 it is InfoVAE.

    Raises:
        TypeError: `beta` is neither a number nor a schedule.
        ValueError: an option is out of range, or two do not go together.

    Cost:
        `num_particles` passes through model and guide per step; "stl" takes one more through the
        guide, `mmd` one more through the model's priors and the square of the rows of a batch.

    References:
        Kingma, Welling: Auto-encoding variational Bayes. 2014. https://arxiv.org/abs/1312.6114
        Ranganath, Gerrish, Blei: Black box variational inference. 2014.
        https://arxiv.org/abs/1401.0118
        Roeder, Wu, Duvenaud: Sticking the landing. 2017. https://arxiv.org/abs/1703.09194
        Higgins et al.: beta-VAE. ICLR 2017. https://openreview.net/forum?id=Sy2fzU9gl
        Kingma et al.: Improved variational inference with inverse autoregressive flow (free bits).
        2016. https://arxiv.org/abs/1606.04934
        Zhao, Song, Ermon: InfoVAE. 2017. https://arxiv.org/abs/1706.02262

    Example:
        >>> ELBO(num_particles=4).num_particles
        4
        >>> ELBO(kl="analytic", beta=0.5, free_bits=0.1).columns
        ('bound', 'kl')
    """

    num_particles: int = 1
    kl: str = "sample"
    estimator: str = "standard"
    beta: Weight = 1.0
    free_bits: float = 0.0
    mmd: float = 0.0

    def __post_init__(self) -> None:
        objective_checks.check_particles(self.num_particles)
        objective_checks.check_elbo(self.kl, self.estimator, self.beta, self.free_bits, self.mmd)

    @property
    def columns(self) -> tuple[str, ...]:
        """What it tells of each step beside the loss."""
        return ("bound", "kl") if self != ELBO(self.num_particles) else ()

    @property
    def reported(self) -> ELBO:
        """The bound that validation data are judged by."""
        return ELBO(self.num_particles, self.kl)

    def check(self, pair: Pair, batch_size: int | None) -> None:
        """Refuse options that need latents of a guide in the data plate where there are none.

        Raises:
            ValueError: as said.
        """
        local = local_latents(pair)
        if self.estimator != "standard":
            objective_checks.check_reparametrised(self.estimator, pair.guide is not None, [])
        for name in ("free_bits", "mmd"):
            if getattr(self, name):
                option = f"{name}={getattr(self, name)}"
                objective_checks.check_parts(option, pair.guide is not None, local)
        if self.mmd and pair.guide is not None:
            sites = pair.guide.sites
            still = [name for name in local if not sites[name].reparametrised]
            objective_checks.check_continuous(f"mmd={self.mmd}", still)

    def __call__(
        self,
        pair: Pair,
        params: Params,
        inputs: Inputs,
        rows: Int[Array, " B"] | None,
        key: Array,
        step: Array | None = None,
    ) -> tuple[Float[Array, ""], Aux]:
        """Return the loss (its gradient is the bound's) and the new mutable state."""
        if self.columns:
            return self._of_parts(pair, params, inputs, rows, key, step)
        weights = particles(pair, params, inputs, rows, key, self.num_particles)
        bound = jnp.mean(weights.shared + weights.scale * jnp.sum(weights.rows, axis=-1))
        if pair.scored:
            bound = bound + score(pair, weights)
        return -bound, Aux(jax.tree.map(lambda leaf: leaf[0], weights.state))

    def _of_parts(
        self,
        pair: Pair,
        params: Params,
        inputs: Inputs,
        rows: Int[Array, " B"] | None,
        key: Array,
        step: Array | None,
    ) -> tuple[Float[Array, ""], Aux]:
        size = inputs.num_rows if rows is None else rows.shape[0]
        scale = inputs.num_rows / size
        options: dict[str, Any] = {"analytic": self.kl == "analytic"}
        options["stopped"] = self.estimator == "stl"

        def draw(key: Array) -> tuple[Parts, Array]:
            found = parts(pair, params, inputs, rows, key=key, **options)
            return found._replace(scale=0.0), self._discrepancy(pair, params, inputs, rows, key,
                                                                found)  # fmt: skip

        found, discrepancy = several(draw, key, self.num_particles)
        free, paid = self._free(found)
        likelihood = jnp.mean(found.shared + scale * jnp.sum(found.rows, axis=-1))
        none = jnp.zeros_like(found.shared), jnp.zeros_like(found.rows)
        shared = sum((jnp.sum(x, axis=-1) for x in found.shared_costs.values()), none[0])
        local = sum((jnp.sum(x, axis=-1) for x in found.costs.values()), none[1])
        kl = jnp.mean(shared + scale * jnp.sum(local, axis=-1))
        charged = jnp.mean(shared) + inputs.num_rows * free if self.free_bits else kl
        beta = at(self.beta, step)
        loss = beta * charged - likelihood + self.mmd * inputs.num_rows * jnp.mean(discrepancy)
        if pair.scored:
            weights = Weights(
                rows=found.rows - beta * paid,
                shared=found.shared - beta * shared,
                scale=scale,
                score_rows=found.score_rows,
                score_shared=found.score_shared,
                latents={},
                state={},
                log_q=jnp.zeros(()),
                deterministic={},
            )
            loss = loss - score(pair, weights)
        state = jax.tree.map(lambda leaf: leaf[0], found.state)
        return loss, Aux(state, (lax.stop_gradient(likelihood - kl), lax.stop_gradient(kl)))

    def _free(self, found: Parts) -> tuple[Array, Array]:
        """Return the divergence per datum with free bits, and what each draw of a row pays."""
        total, paid = jnp.zeros(()), jnp.zeros_like(found.rows)
        for cost in found.costs.values():
            mean = jnp.mean(cost, axis=(0, 1))
            total = total + jnp.sum(jnp.maximum(self.free_bits, mean) if self.free_bits else mean)
            counts = (mean > self.free_bits) | (self.free_bits == 0)
            paid = paid + jnp.sum(cost * counts, axis=-1)
        return total, paid

    def _discrepancy(self, pair: Pair, params: Params, inputs: Inputs, rows: Any, key: Array,
                     found: Parts) -> Array:  # fmt: skip
        if not self.mmd:
            return jnp.zeros(())
        assert pair.guide is not None
        drawn = beside(pair.model, {name: found.draws[name] for name in local_latents(pair)})
        prior = prior_draws(pair, params, inputs, rows, random.fold_in(key, 1))
        return discrepancy(drawn, prior)


def discrepancy(one: Float[Array, "B size"], other: Float[Array, "B size"]) -> Float[Array, ""]:
    r"""Return an unbiased estimate of the squared maximum mean discrepancy of two sets of draws.

    The kernel is \(C / (C + \lVert z - z' \rVert^2)\), C the mean squared distance within the
    other set.

    Args:
        one: draws of one distribution.
        other: as many draws of another.

    References:
        Gretton, Borgwardt, Rasch, Schoelkopf, Smola: A kernel two-sample test. JMLR 13, 2012.
        Tolstikhin, Bousquet, Gelly, Schoelkopf: Wasserstein auto-encoders. 2018.
        https://arxiv.org/abs/1711.01558
    """
    size = one.shape[0]
    apart = 1.0 - jnp.eye(size)

    def distances(a: Array, b: Array) -> Array:
        squares = jnp.sum(a * a, -1)[:, None] + jnp.sum(b * b, -1)[None, :]
        return jnp.maximum(squares - 2.0 * a @ b.T, 0.0)

    def mean(values: Array) -> Array:
        return jnp.sum(values * apart) / (size * (size - 1))

    within = distances(other, other)
    width = lax.stop_gradient(mean(within))
    ones, others, between = (
        width / (width + x) for x in (distances(one, one), within, distances(one, other))
    )
    return mean(ones) + mean(others) - 2.0 * mean(between)


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


def score(pair: Pair, weights: Weights) -> Array:
    """Return what is added to a bound so that its gradient has the score of draws without one."""
    total = weights.shared + weights.scale * jnp.sum(weights.rows, axis=-1)
    row = weights.scale * weights.rows
    if touches_shared(pair):
        row = row + weights.shared[:, None]
    shared_cost = lax.stop_gradient(total - leave_one_out(total))
    row_cost = lax.stop_gradient(row - leave_one_out(row))
    shared, local = weights.score_shared, weights.score_rows
    surrogate = shared_cost * shared + jnp.sum(row_cost * local, axis=-1)
    return jnp.mean(surrogate - lax.stop_gradient(surrogate))
