"""Missing cells as draws: means, intervals, and whether these hold where the truth is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from deepgen_ppl.calibration import Calibration, rank
from deepgen_ppl.classes import Reliability, reliability
from deepgen_ppl.diagnosis import Diagnosis
from deepgen_ppl.evidence_checks import check_counts

METHODS = ("importance", "smc")


class Coverage(NamedTuple):
    """How often true values lie inside of intervals of draws.

    Attributes:
        share: of the missing cells, those inside.
        standard_error: of that share, cells of one row counted as dependent.
        prob: share that the intervals are meant to hold.
    """

    share: float
    standard_error: float
    prob: float


@dataclass(frozen=True, eq=False, repr=False)
class Imputation:
    r"""Draws of missing cells given the observed ones, with a diagnosis of what made them.

    Attributes:
        draws: whole rows, whose observed cells are the data, (num_samples, N, *features).
        mask: which cells were observed, (N, *features).
        diagnosis: whether the draws of the latents behind them can be trusted.
        pareto_k: Pareto k of each row's weights, (N,); None where latents were moved, not weighed.
        num_particles: draws of each row's latents that these were taken from.
        method: how.

    References:
        Mattei, Frellsen: MIWAE, deep generative modelling and imputation of incomplete data sets.
        ICML 2019. https://arxiv.org/abs/1812.02633

    Example:
        >>> rng = np.random.default_rng(0)
        >>> mask = np.tile([True, False], (300, 1))
        >>> found = Imputation(rng.normal(size=(99, 300, 2)), mask, Diagnosis("", ()))
        >>> found
        Imputation(99 draws of 300 missing cells in 300 of 300 rows, by importance; not checked)
        >>> found.interval(0.9)[0].shape
        (300, 2)
        >>> share, error, _ = found.coverage(rng.normal(size=(300, 2)), 0.9)
        >>> bool(abs(share - 0.9) < 5 * error)
        True
    """

    draws: np.ndarray
    mask: Bool[np.ndarray, "N ..."]
    diagnosis: Diagnosis
    pareto_k: Float[np.ndarray, " N"] | None = None
    num_particles: int = 0
    method: str = "importance"

    def __repr__(self) -> str:
        rows = int((~self.mask).reshape(len(self.mask), -1).any(1).sum())
        judged = any(check.ok is not None for check in self.diagnosis.checks)
        verdict = "not checked" if not judged else "ok" if self.diagnosis.ok else "NOT OK"
        return (
            f"Imputation({len(self.draws)} draws of {int((~self.mask).sum())} missing cells in "
            f"{rows} of {len(self.mask)} rows, by {self.method}; {verdict})"
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the draws: what NumPy takes for an array is they."""
        return np.array(self.draws, dtype, copy=copy)

    @property
    def mean(self) -> Float[np.ndarray, "N ..."]:
        """Mean of the draws; of bits the probabilities."""
        return self.draws.mean(0)

    @property
    def std(self) -> Float[np.ndarray, "N ..."]:
        """Standard deviation of the draws, zero of observed cells."""
        return self.draws.std(0)

    def interval(
        self, prob: float = 0.9
    ) -> tuple[Float[np.ndarray, "N ..."], Float[np.ndarray, "N ..."]]:
        """Return the ends of central intervals, of observed cells the data.

        Args:
            prob: share of the draws inside.

        Raises:
            ValueError: `prob` is not between 0 and 1.
        """
        low, high = np.quantile(self.draws, _ends(prob), axis=0)
        return low, high

    def coverage(self, truth: Any, prob: float = 0.9) -> Coverage:
        r"""Return how often true values lie inside of central intervals.

        Inside is \(\lvert u - 1/2 \rvert \le \text{prob} / 2\) with \(u\) the rank of the truth
        among the draws as a number in (0, 1), ties broken at random: of discrete cells too the
        share is `prob` where truth and draws have one law.

        Args:
            truth: the whole rows.
            prob: share that the intervals are meant to hold.

        Raises:
            ValueError: `truth` of another shape, no missing cell, or `prob` not between 0 and 1.
        """
        _ends(prob)
        truth, gone = self._truth(truth), ~self.mask.reshape(len(self.mask), -1)
        u = _uniform(self.draws.reshape(len(self.draws), *gone.shape), truth.reshape(gone.shape))
        inside = ((abs(u - 0.5) <= prob / 2) & gone).sum(1)
        share, size = inside.sum() / gone.sum(), len(gone)
        apart = (inside - share * gone.sum(1)) / gone.sum(1).mean()
        error = apart.std(ddof=1) / size**0.5 if size > 1 else np.inf
        return Coverage(float(share), float(error), prob)

    def reliability(self, truth: Any, num_bins: int = 10) -> Reliability:
        """Compare the probabilities of missing bits with how often they are right.

        The probability of a one is (ones + 1/2) / (draws + 1), which is neither 0 nor 1.

        Args:
            truth: the whole rows.
            num_bins: bins of the probability of the likelier value, from 1/2 to 1.

        Raises:
            ValueError: `truth` of another shape, or cells that are no bits.
        """
        truth = self._truth(truth)
        bits = truth[~self.mask]
        if not np.isin(bits, (0, 1)).all() or not np.isin(self.draws[:, ~self.mask], (0, 1)).all():
            raise ValueError(
                "reliability is about cells that are 0 or 1: take coverage(truth) of other values."
            )
        p = (self.draws[:, ~self.mask].sum(0) + 0.5) / (len(self.draws) + 1.0)
        return reliability(np.stack([1.0 - p, p], 1), bits.astype(int), num_bins)

    def calibration(
        self, truth: Any, quantities: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None
    ) -> Calibration:
        """Rank the truth of each row among its draws, by quantities of whole rows.

        Means of single cells do not tell whether cells are drawn together rightly; the sum of the
        missing ones does, and whatever else is asked for.

        Args:
            truth: the whole rows.
            quantities: functions of rows (..., N, *features) to numbers (..., N), by name; the sum
                of a row's missing cells when None.

        Returns:
            The ranks, one a row: `diagnose()` tells whether they are uniform, and
            `calibration_figures.rank_ecdf` shows them.

        Raises:
            ValueError: `truth` of another shape, or a quantity that gives no number a row.
        """
        truth, rows = self._truth(truth), len(self.mask)
        axes = tuple(range(-(self.mask.ndim - 1), 0))
        asked = quantities or {"sum": lambda x: (x * ~self.mask).sum(axes)}
        ranks, rng = {}, np.random.default_rng(0)
        whole = np.where(self.mask, self.draws[0], truth)
        for name, quantity in asked.items():
            true, drawn = np.asarray(quantity(whole)), np.asarray(quantity(self.draws))
            if true.shape != (rows,) or drawn.shape != (len(self.draws), rows):
                raise ValueError(
                    f"quantity '{name}' gives shape {drawn.shape} of draws of shape "
                    f"{self.draws.shape}: it takes rows (..., N, *features) to numbers (..., N)."
                )
            ranks[name] = rank((drawn < true).sum(0), (drawn == true).sum(0), rng)
        return Calibration(
            ranks, np.full(rows, len(self.draws)), quantities=tuple(asked), infer="impute"
        )

    def _truth(self, truth: Any) -> np.ndarray:
        found = np.asarray(truth)
        if found.shape != self.mask.shape:
            raise ValueError(
                f"truth has shape {found.shape}, but the rows have shape {self.mask.shape}."
            )
        if self.mask.all():
            raise ValueError("no cell is missing, so there is nothing to compare.")
        return found


def check(method: str, num_samples: int, num_particles: int) -> None:
    """Refuse what draws cannot be taken by.

    Args:
        method: one of `METHODS`.
        num_samples: draws that are kept of each row.
        num_particles: draws that they are taken from.

    Raises:
        ValueError: naming it.

    Example:
        >>> check("smc", 99, 64)
        Traceback (most recent call last):
        ...
        ValueError: num_samples=99 draws of each row, but num_particles=64: smc has no more to give.
    """
    if method not in METHODS:
        names = " or ".join(map(repr, METHODS))
        raise ValueError(f"method must be {names}, got {method!r}.")
    check_counts(num_samples=num_samples, num_particles=num_particles)
    if method == "smc" and num_samples > num_particles:
        raise ValueError(
            f"num_samples={num_samples} draws of each row, but num_particles={num_particles}: smc "
            "has no more to give."
        )


def spread_over(num_particles: int, num_samples: int) -> np.ndarray:
    """Return which particles to take, equally far apart, so that each island gives its share.

    Example:
        >>> spread_over(6, 3).tolist()
        [0, 2, 4]
    """
    return np.arange(num_samples) * num_particles // num_samples


def _ends(prob: float) -> tuple[float, float]:
    if not 0 < prob < 1:
        raise ValueError(f"prob must lie between 0 and 1, got {prob!r}.")
    return 0.5 - prob / 2, 0.5 + prob / 2


def _uniform(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the ranks of true values among draws as numbers in (0, 1)."""
    rng = np.random.default_rng(0)
    found = rank((draws < truth).sum(0), (draws == truth).sum(0), rng)
    return (found + rng.random(found.shape)) / (len(draws) + 1.0)
