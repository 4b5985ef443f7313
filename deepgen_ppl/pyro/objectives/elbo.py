"""The evidence lower bound: the mean log weight of draws from the guide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepgen_ppl import objective_checks
from deepgen_ppl.pyro.parts import Parts, beside, local_latents, parts, prior_draws
from deepgen_ppl.pyro.program import Pair, Weights, particles, several
from deepgen_ppl.schedules import Weight, at

Params = Mapping[str, Tensor]


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
    def traceable(self) -> bool:
        """Whether it can run as one traced graph."""
        return True

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
        if self.columns:
            plates = [p for program in pair.programs for p in program.plates.values()]
            objective_checks.check_vectorised(
                [p.name for p in plates if p.follows_data and p.dim is None]
            )
        if self.mmd and pair.guide is not None:
            sites = pair.guide.sites
            still = [name for name in local if not sites[name].reparametrised]
            objective_checks.check_continuous(f"mmd={self.mmd}", still)

    def __call__(
        self,
        pair: Pair,
        params: Params,
        data: Sequence[Any],
        rows: Int[Tensor, " B"] | None,
        step: Tensor | None = None,
    ) -> Float[Tensor, "*columns"]:
        """Return the loss (its gradient is the bound's), with its columns where it has some."""
        if self.columns:
            return self._of_parts(pair, params, data, rows, step)
        weights = particles(pair, params, data, rows, self.num_particles)
        bound = torch.mean(weights.total)
        if pair.scored:
            bound = bound + score(pair, weights)
        return -bound

    def _of_parts(
        self,
        pair: Pair,
        params: Params,
        data: Sequence[Any],
        rows: Int[Tensor, " B"] | None,
        step: Tensor | None,
    ) -> Float[Tensor, " columns"]:
        num_rows = pair.num_rows or 1
        scale = 1.0 if rows is None else num_rows / len(rows)
        options: dict[str, Any] = {"analytic": self.kl == "analytic"}
        options["stopped"] = self.estimator == "stl"

        def draw(_: Any) -> tuple[Any, Tensor]:
            found = parts(pair, params, data, rows, **options)
            return found._replace(scale=found.rows.sum()), self._discrepancy(
                pair, params, data, rows, found
            )

        found, discrepancy = several(pair, draw, self.num_particles)
        free, paid = self._free(found)
        likelihood = torch.mean(found.shared + scale * found.rows.sum(-1))
        none = torch.zeros_like(found.shared), torch.zeros_like(found.rows)
        shared = sum((x.sum(-1) for x in found.shared_costs.values()), none[0])
        local = sum((x.sum(-1) for x in found.costs.values()), none[1])
        kl = torch.mean(shared + scale * local.sum(-1))
        charged = torch.mean(shared) + num_rows * free if self.free_bits else kl
        beta = at(self.beta, step)
        loss = beta * charged - likelihood + self.mmd * num_rows * torch.mean(discrepancy)
        if pair.scored:
            weights = Weights(
                rows=found.rows - beta * paid,
                shared=found.shared - beta * shared,
                scale=scale,
                score_rows=found.score_rows,
                score_shared=found.score_shared,
                latents={},
            )
            loss = loss - score(pair, weights)
        return torch.stack([loss, (likelihood - kl).detach(), kl.detach()])

    def _free(self, found: Parts) -> tuple[Tensor, Tensor]:
        """Return the divergence per datum with free bits, and what each draw of a row pays."""
        total, paid = found.rows.new_zeros(()), torch.zeros_like(found.rows)
        for cost in found.costs.values():
            mean = cost.mean((0, 1))
            total = total + (mean.clamp(min=self.free_bits) if self.free_bits else mean).sum()
            counts = (mean > self.free_bits) | (self.free_bits == 0)
            paid = paid + torch.sum(cost * counts, -1)
        return total, paid

    def _discrepancy(self, pair: Pair, params: Params, data: Sequence[Any], rows: Any,
                     found: Parts) -> Tensor:  # fmt: skip
        if not self.mmd:
            return found.rows.sum() * 0.0
        drawn = beside(pair.model, {name: found.draws[name] for name in local_latents(pair)})
        return discrepancy(drawn, prior_draws(pair, params, data, rows))


def discrepancy(one: Float[Tensor, "B size"], other: Float[Tensor, "B size"]) -> Float[Tensor, ""]:
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
    apart = 1.0 - torch.eye(size, dtype=one.dtype, device=one.device)

    def distances(a: Tensor, b: Tensor) -> Tensor:
        squares = (a * a).sum(-1)[:, None] + (b * b).sum(-1)[None, :]
        return (squares - 2.0 * a @ b.T).clamp(min=0.0)

    def mean(values: Tensor) -> Tensor:
        return torch.sum(values * apart) / (size * (size - 1))

    within = distances(other, other)
    width = mean(within).detach()
    ones, others, between = (
        width / (width + x) for x in (distances(one, one), within, distances(one, other))
    )
    return mean(ones) + mean(others) - 2.0 * mean(between)


def touches_shared(pair: Pair) -> bool:
    """Tell whether terms outside the data plates may depend on draws inside them."""
    return any(program.touches_shared for program in pair.programs)


def leave_one_out(values: Tensor) -> Tensor:
    """Return the mean of the other particles along axis 0; zero for a single one."""
    count = len(values)
    return (values.sum(0) - values) / (count - 1) if count > 1 else torch.zeros_like(values)


def score(pair: Pair, weights: Weights) -> Tensor:
    """Return what is added to a bound so that its gradient has the score of draws without one."""
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
