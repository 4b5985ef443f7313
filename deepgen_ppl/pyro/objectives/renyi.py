"""The variational Rényi bound: a power mean of several weights per datum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepgen_ppl import objective_checks
from deepgen_ppl.pyro.objectives.elbo import Params, leave_one_out, touches_shared
from deepgen_ppl.pyro.parts import guide_draws, scaled_gradients, weigh
from deepgen_ppl.pyro.program import Pair, Weights, particles, several


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

    @property
    def traceable(self) -> bool:
        """Whether it can run as one traced graph."""
        return True

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
                own = {n: site.row_plate is not None for n, site in sites.items()}
                shared = [name for name in sites if not own[name]]
                local = [name for name in sites if own[name]]
                objective_checks.check_one_kind(self.estimator, shared, local)
        if batch_size is not None and not by_rows(pair):
            raise ValueError(
                f"batch_size={batch_size}: the model has no latents in the data plate, so a bound "
                "of "
                f"{self.num_particles} particles is no sum over rows. Use dg.ELBO(), or drop "
                "batch_size."
            )

    def __call__(
        self, pair: Pair, params: Params, data: Sequence[Any], rows: Int[Tensor, " B"] | None
    ) -> Float[Tensor, ""]:
        """Return the loss; its gradient is the bound's."""
        local = by_rows(pair)
        if self.estimator == "standard":
            weights = particles(pair, params, data, rows, self.num_particles, hold_shared=local)
        else:
            weights = self._followed(pair, params, data, rows, local)
        total = weights.total
        if local:
            bound = weights.shared[0] + weights.scale * self._mean(weights.rows).sum()
        else:
            bound = self._mean(total)
        if weights.score_rows is not None and weights.score_shared is not None:
            if local:
                gain = weights.scale * self._gain(weights.rows) * weights.score_rows
                surrogate = gain.sum() + bound.detach() * weights.score_shared[0]
            else:
                score = weights.score_shared + weights.score_rows.sum(-1)
                surrogate = torch.sum(self._gain(total) * score)
            bound = bound + surrogate - surrogate.detach()
        return -bound

    def _followed(self, pair: Pair, params: Params, data: Sequence[Any], rows: Any, local: bool
                  ) -> Weights:  # fmt: skip
        """Return weights whose gradient in the guide's parameters is that of the draws alone."""
        count = self.num_particles
        scale = 1.0 if rows is None else (pair.num_rows or 1) / len(rows)

        def weighed(_: Any, draws: Any) -> Any:
            return weigh(pair, params, draws, data, rows)

        draws = several(pair, lambda _: guide_draws(pair, params, data, rows), count)
        if self.estimator == "dreg":
            with torch.no_grad():
                still = {name: value.detach() for name, value in draws.items()}
                found = several(pair, weighed, count, still)
                log_w = found[0] if local else found[1] + scale * found[0].sum(-1)
                factor = self.alpha + (1.0 - self.alpha) * log_w.mul(1.0 - self.alpha).softmax(0)
            draws = several(
                pair, lambda _, d, f: scaled_gradients(pair, d, f), count, draws, factor
            )
        row, shared = several(pair, weighed, count, draws)
        return Weights(row, shared, scale, None, None, {})

    def _mean(self, log_weights: Float[Tensor, "particle *B"]) -> Float[Tensor, "*B"]:
        power = 1.0 - self.alpha
        return (torch.logsumexp(power * log_weights, 0) - math.log(self.num_particles)) / power

    def _gain(self, log_weights: Float[Tensor, "particle *B"]) -> Float[Tensor, "particle *B"]:
        # The bound less what it would be with particle k at the mean of the others (VIMCO,
        # Mnih and Rezende 2016): it does not depend on draw k, so the gradient stays unbiased.
        log_weights = log_weights.detach()
        bound = self._mean(log_weights)
        if self.num_particles == 1:
            return bound[None]
        others = leave_one_out(log_weights)
        held = torch.eye(self.num_particles, dtype=torch.bool, device=log_weights.device)
        held = held.reshape(held.shape + (1,) * (log_weights.dim() - 1))
        without = [self._mean(torch.where(keep, others, log_weights)) for keep in held]
        return bound - torch.stack(without)


def by_rows(pair: Pair) -> bool:
    """Tell whether the bound is one per row: some latent is local and none leaks outside."""
    local = any(site.row_plate is not None for site in pair.model.latents.values())
    return local and not touches_shared(pair)
