"""Whose fault an inference gap is, the encoder's or the family's: a report with advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from deepgen_ppl.diagnosis import Check, Diagnosis
from deepgen_ppl.evidence import evidence

SOURCE = "Cremer et al. 2018, arXiv:1801.03558"
PSIS = "Vehtari et al. 2024, arXiv:1507.02646"

_LEAST, _SHARE = 0.05, 0.5
_GOOD_K, _FEW = 0.7, 0.1


@dataclass(frozen=True, eq=False, repr=False)
class AmortizationGap:
    r"""The inference gap of a guide in two parts, in nats per datum.

    $$\underbrace{\log p(x) - \mathcal L[q]}_{\text{inference}} =
    \underbrace{\log p(x) - \mathcal L[q^*]}_{\text{approximation: the family's}} +
    \underbrace{\mathcal L[q^*] - \mathcal L[q]}_{\text{amortization: the encoder's}}$$

    where \(q^*\) is the best member of the guide's family for each datum by itself. Figures are
    means over the rows; their errors are those of the paired differences of the rows, which hold
    the noise of the draws too. A single row's errors are those of its draws.

    Attributes:
        log_evidence: log p(x) of each row, an estimate from below.
        bound: evidence lower bound of each row under the guide.
        refined: the same with the row's own parameters.
        pareto_k: Pareto k of the weights behind each row's evidence; None where it was given.
        noise: standard errors by its draws of each row's gaps: inference, approximation,
            amortization.
        settled: rows whose own parameters settled before the steps ran out.
        num_steps: steps taken, of the row that took most.
        num_particles: draws of each row, behind its bounds and its evidence.
        own: number of parameters that each datum has by itself.
        shared: number of parameters of the guide.

    References:
        Cremer, Li, Duvenaud: Inference suboptimality in variational autoencoders. ICML 2018.
        https://arxiv.org/abs/1801.03558
    """

    log_evidence: Float[np.ndarray, " N"]
    bound: Float[np.ndarray, " N"]
    refined: Float[np.ndarray, " N"]
    pareto_k: Float[np.ndarray, " N"] | None
    noise: Float[np.ndarray, "3 N"]
    settled: Bool[np.ndarray, " N"]
    num_steps: int
    num_particles: int
    own: int
    shared: int

    @property
    def inference(self) -> float:
        """The whole gap."""
        return float(np.mean(self.log_evidence - self.bound))

    @property
    def inference_error(self) -> float:
        """Its standard error."""
        return self._error(0, self.log_evidence - self.bound)

    @property
    def approximation(self) -> float:
        """What the family costs even where each datum has its own best member of it."""
        return float(np.mean(self.log_evidence - self.refined))

    @property
    def approximation_error(self) -> float:
        """Its standard error."""
        return self._error(1, self.log_evidence - self.refined)

    @property
    def amortization(self) -> float:
        """What the encoder costs: the guide's bound below that of each datum's own best member."""
        return float(np.mean(self.refined - self.bound))

    @property
    def amortization_error(self) -> float:
        """Its standard error."""
        return self._error(2, self.refined - self.bound)

    @property
    def share(self) -> float:
        """Share of the gap that is the encoder's."""
        return self.amortization / self.inference if self.inference > 0 else 0.0

    @property
    def diagnosis(self) -> Diagnosis:
        """Whose fault the gap is, what to do, and whether the figures can be believed."""
        title = f"amortization, {len(self.bound)} rows"
        checks = (self._encoder(), self._family(), self._settled(), self._weights())
        return Diagnosis(title, checks)

    def __repr__(self) -> str:
        given, size = self.pareto_k is None, len(self.bound)
        draws = f"{self.num_particles} draws a datum"
        rows = [
            ("log evidence", _mean(self.log_evidence), "given" if given else "by importance"),
            ("bound, own parameters", _mean(self.refined), draws),
            ("bound, encoder", _mean(self.bound), ""),
            ("inference gap", _pair(self.inference, self.inference_error), ""),
            ("  approximation", _pair(self.approximation, self.approximation_error),
             f"the family's: {self.own:,} numbers a datum"),
            ("  amortization", _pair(self.amortization, self.amortization_error),
             f"the encoder's: {self.shared:,} parameters for {self.own:,} x {size:,} numbers"),
        ]  # fmt: skip
        table = [f"{name:<23}{value:>19}  {note}".rstrip() for name, value, note in rows]
        head = f"{'':<23}{'nats a datum':>19}"
        return "\n".join([head, *table, repr(self.diagnosis)])

    def _error(self, gap: int, values: np.ndarray) -> float:
        return _error(values) if len(values) > 1 else float(self.noise[gap, 0])

    def _encoder(self) -> Check:
        gap, error = self.amortization, self.amortization_error
        ok = gap - 2 * error <= _LEAST or self.share <= _SHARE
        if not ok:
            advice = (
                f"{100 * self.share:.0f}% of the gap is the encoder's. Make it larger or train it "
                "longer; where it costs less on the training rows it overfits them, and more data "
                "or fewer steps help. Or refine each datum's parameters (dg.refine)."
            )
        elif gap - 2 * error <= _LEAST:
            advice = "The encoder finds the best of its family for nearly every datum."
        else:
            advice = (
                f"The encoder costs {gap:.2f} nats, the family more. dg.refine gains those back."
            )
        limit = f"<= {_LEAST} nats or {_SHARE} of the gap"
        return Check("amortization gap", gap, limit, ok, advice, SOURCE)

    def _family(self) -> Check:
        gap, error = self.approximation, self.approximation_error
        ok = gap - 2 * error <= _LEAST or self.share > _SHARE
        if not ok:
            advice = (
                f"{100 * (1 - self.share):.0f}% of the gap is the family's, which no encoder mends."
                " Take a richer one (full covariance, a mixture, a flow), or train with dg.IWAE."
            )
        elif gap - 2 * error <= _LEAST:
            advice = "The family holds the posteriors well enough."
        else:
            advice = f"The family costs {gap:.2f} nats, the encoder more: begin with that."
        limit = f"<= {_LEAST} nats or {1 - _SHARE} of the gap"
        return Check("approximation gap", gap, limit, ok, advice, SOURCE)

    def _settled(self) -> Check:
        share = float(np.mean(self.settled))
        ok = share >= 1 - _FEW
        advice = f"Every row's own parameters settled within {self.num_steps} steps."
        if share < 1:
            left = int(np.sum(~self.settled))
            advice = f"{left} rows did not settle within {self.num_steps} steps."
        if not ok:
            advice += " The amortization gap may be larger: let max_steps be more."
        return Check("settled rows", share, f">= {1 - _FEW}", ok, advice, SOURCE)

    def _weights(self) -> Check:
        name, limit = "share of Pareto k > 0.7", f"<= {_FEW}"
        if self.pareto_k is None:
            return Check(name, None, limit, None, "The evidence was given.", PSIS)
        share = float(np.mean(self.pareto_k > _GOOD_K))
        ok = share <= _FEW
        advice = "The weights behind the evidence have light tails."
        if not ok:
            advice = (
                "Too many rows have heavy tails: their evidence is too low, and the approximation "
                "gap too small. Pass evidence= that of dg.ais(model, ...) or more num_particles."
            )
        return Check(name, share, limit, ok, advice, PSIS)


class Weighed(NamedTuple):
    """What log weights of some rows tell: bounds, evidence, Pareto k and noise of each row."""

    bound: np.ndarray
    refined: np.ndarray
    log_evidence: np.ndarray
    pareto_k: np.ndarray
    noise: np.ndarray


def weighed(
    encoder: Float[np.ndarray, "K B"], refined: Float[np.ndarray, "K B"], is_known: bool
) -> Weighed:
    r"""Reduce the log weights of some rows under the encoder's output, and refined.

    The noise of a gap is the spread of what each draw adds to it: of its log weight, and, where the
    evidence is estimated, of its weight over the mean weight (the delta method).

    Args:
        encoder: log weights of draws of the guide.
        refined: those of draws of its refined members.
        is_known: whether the evidence is known, and not to be estimated.

    Example:
        >>> found = weighed(np.full((100, 2), -2.0), np.full((100, 2), -1.0), False)
        >>> found.log_evidence.tolist()
        [-1.0, -1.0]
    """
    means = np.mean(encoder, 0, dtype=float), np.mean(refined, 0, dtype=float)
    share = 0.0
    if not is_known:
        weights = np.exp(np.asarray(refined, float) - np.max(refined, 0))
        share = weights / weights.mean(0)
    added = np.stack([share - encoder, share - refined, np.asarray(refined) - encoder])
    noise = np.full((3, len(means[0])), np.nan)
    if len(encoder) > 1:
        noise = added.std(1, ddof=1) / len(encoder) ** 0.5
    if is_known:
        return Weighed(*means, *means, noise)
    found = evidence(refined, rows="data")
    return Weighed(*means, np.asarray(found.per_row), np.asarray(found.pareto_k), noise)


def gap_report(
    parts: Sequence[Weighed],
    log_evidence: np.ndarray | None,
    settled: np.ndarray,
    num_steps: int,
    own: int,
    shared: int,
    num_particles: int,
) -> AmortizationGap:
    """Put the chunks of rows together.

    Args:
        parts: what each chunk's weights tell.
        log_evidence: the evidence of each row where it is given.
        settled: rows that settled.
        num_steps: steps taken.
        own: number of parameters that each datum has by itself.
        shared: number of parameters of the guide.
        num_particles: draws of each row.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> log_w = rng.normal(size=(500, 20))
        >>> part = weighed(log_w - 1, log_w, False)
        >>> found = gap_report([part], None, np.ones(20, bool), 100, 2, 10, 500)
        >>> round(found.amortization, 6), 0.4 < found.approximation < 0.6
        (1.0, True)
    """
    bound, refined, found, pareto_k, noise = (
        np.concatenate(values, -1) for values in zip(*parts, strict=True)
    )
    given = log_evidence is not None
    return AmortizationGap(
        log_evidence=log_evidence if log_evidence is not None else found,
        bound=bound,
        refined=refined,
        pareto_k=None if given else pareto_k,
        noise=noise,
        settled=settled,
        num_steps=num_steps,
        num_particles=num_particles,
        own=own,
        shared=shared,
    )


def given_evidence(given: Any, num_rows: int) -> Float[np.ndarray, " N"]:
    """Return the log evidence of each row from what a user passes.

    Args:
        given: an array, or a result of ours with its evidence by row.
        num_rows: number of rows.

    Raises:
        ValueError: it has not one finite number for each row.

    Example:
        >>> given_evidence([-1.0, -2.0], 3)
        Traceback (most recent call last):
        ...
        ValueError: evidence must have one number for each of the 3 rows, got shape (2,). ...
    """
    found = getattr(given, "evidence", given)
    values = np.asarray(getattr(found, "per_row", found), float)
    if values.shape != (num_rows,):
        raise ValueError(
            f"evidence must have one number for each of the {num_rows} rows, got shape "
            f"{values.shape}. Pass an array, or a result whose evidence is per row, such as that "
            "of dg.ais or dg.importance where all latents are the rows' own."
        )
    if not np.all(np.isfinite(values)):
        rows = np.flatnonzero(~np.isfinite(values))[:5].tolist()
        raise ValueError(f"evidence is not finite at rows {rows}.")
    return values


def _error(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / len(values) ** 0.5)


def _mean(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return _pair(float(np.mean(values)), _error(values))


def _pair(value: float, error: float) -> str:
    return f"{value:.3f} +- {error:.3f}"
