"""The evidence lower bound whose discrete draws are relaxed so that gradients pass them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jax import lax
from jaxtyping import Array, Float, Int

from deepgen_ppl import objective_checks
from deepgen_ppl.numpyro.handlers import relax
from deepgen_ppl.numpyro.objectives.elbo import ELBO, Aux, Params
from deepgen_ppl.numpyro.program import Inputs, Pair
from deepgen_ppl.numpyro.relaxation import base, relaxed
from deepgen_ppl.numpyro.structure import Program
from deepgen_ppl.schedules import Weight, at


@dataclass(frozen=True)
class RelaxedELBO:
    r"""A training loss for discrete latents: the bound at relaxed draws, whose gradient is biased.

    $$z = \mathrm{softmax}\bigl((\ell + \epsilon) / \tau\bigr), \quad \epsilon \sim \mathrm{Gumbel},
    \qquad \mathcal L_\tau = \mathbb E_\epsilon\bigl[\log p(x \mid z)\bigr]
    - \mathrm{KL}\bigl(q(z \mid x) \,\|\, p(z)\bigr)$$

    Sites of the guide that draw bits (`Bernoulli`) or one-hot vectors (`dg.vae.OneHots`) are
    relaxed, in any model and guide; the divergence is the discrete one wherever it has a
    closed form. **The loss is no bound.** Beside it `fit.history` has the "bound" of the *discrete*
    model, at discrete draws, and its "kl"; validation data are judged by that bound.

    Args:
        temperature: \(\tau\), a number or a `KLAnnealing` from `start` to `end`: less bias and more
            variance as it falls.
        straight_through: discrete draws forwards and relaxed ones backwards, so that the decoder
            sees discrete codes; then the loss is the discrete model's bound, its gradient biased.
        num_particles: draws of the latents per step.
        beta: weight of the divergence, as of `ELBO`.
        free_bits: nats per datum below which the divergence of a unit costs no less.

    Raises:
        ValueError: options out of range; at a fit, latents that have no relaxation.

    Cost:
        `num_particles` passes through model and guide per step, twice as many forward ones without
        `straight_through`, for the reported bound.

    References:
        Jang, Gu, Poole: Categorical reparameterization with Gumbel-softmax. ICLR 2017.
        https://arxiv.org/abs/1611.01144
        Maddison, Mnih, Teh: The Concrete distribution. ICLR 2017. https://arxiv.org/abs/1611.00712
        Bengio, Leonard, Courville: Estimating or propagating gradients through stochastic neurons.
        2013. https://arxiv.org/abs/1308.3432

    Example:
        >>> RelaxedELBO(0.5).columns
        ('bound', 'kl')
    """

    temperature: Weight = 0.5
    straight_through: bool = False
    num_particles: int = 1
    beta: Weight = 1.0
    free_bits: float = 0.0

    def __post_init__(self) -> None:
        objective_checks.check_particles(self.num_particles)
        objective_checks.check_temperature(self.temperature)
        objective_checks.check_elbo("analytic", "standard", self.beta, self.free_bits, 0.0)

    @property
    def columns(self) -> tuple[str, ...]:
        """What it tells of each step beside the loss."""
        return ("bound", "kl")

    @property
    def reported(self) -> ELBO:
        """The bound that validation data are judged by: of the discrete model."""
        return ELBO(self.num_particles, "analytic")

    def check(self, pair: Pair, batch_size: int | None) -> None:
        """Refuse pairs without discrete latents.

        Raises:
            ValueError: as said.
        """
        objective_checks.check_relaxable(discrete(pair))
        self._inner.check(pair, batch_size)

    @property
    def _inner(self) -> ELBO:
        return ELBO(self.num_particles, "analytic", beta=self.beta, free_bits=self.free_bits)

    def __call__(
        self,
        pair: Pair,
        params: Params,
        inputs: Inputs,
        rows: Int[Array, " B"] | None,
        key: Array,
        step: Array | None = None,
    ) -> tuple[Float[Array, ""], Aux]:
        """Return the loss, the new mutable state and the bound of the discrete model."""
        temperature = at(self.temperature, step)
        soft = relaxed_pair(pair, temperature, self.straight_through)
        loss, aux = self._inner(soft, params, inputs, rows, key, step)
        if self.straight_through:
            return loss, aux
        _, told = self.reported(pair, lax.stop_gradient(params), inputs, rows, key, step)
        return loss, Aux(aux.state, told.columns)


def discrete(pair: Pair) -> list[str]:
    """Return the discrete latents of a guide."""
    sites = {} if pair.guide is None else pair.guide.latents
    return [name for name, site in sites.items() if site.is_discrete]


def relaxed_pair(pair: Pair, temperature: Any, straight_through: bool) -> Pair:
    """Return the same pair with the discrete latents of its guide relaxed in both programs."""
    names = discrete(pair)

    def change(fn: Any, name: str) -> Any:
        found = relaxed(fn, temperature, straight_through)
        if found is None:
            raise ValueError(objective_checks.no_relaxation(name, type(base(fn)).__name__))
        return found

    def wrapped(program: Program, strict: bool) -> Program:
        sites = {
            name: site._replace(reparametrised=True, is_discrete=False) if name in names else site
            for name, site in program.sites.items()
        }
        return replace(program, fn=relax(program.fn, names, change, strict), sites=sites)

    assert pair.guide is not None
    return pair._replace(model=wrapped(pair.model, False), guide=wrapped(pair.guide, True))
