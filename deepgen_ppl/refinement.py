"""Each datum's own parameters of a guide: how far they step, and when a row has settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from deepgen_ppl import checks, evidence_checks, flow_checks

PREFIX = "own"
"""Parameters of each datum are named by it, the site, and what of its distribution they are."""

WINDOW = 50
"""Steps between two looks at whether a row has settled."""

PARTICLES = 100
"""Draws by which a row's refined posterior is judged against the encoder's."""

_SHRINK, _CUTS = 4.0, 3


class Settling:
    r"""Decides row by row how large steps are, and when there are no more.

    Every window of steps sees the same draws, so that the bounds of two windows are compared draw
    by draw. Where one is better than the last one by no more than `tolerance`, or than the standard
    error of the difference, the row's steps are made four times shorter; where that happens at the
    shortest ones, 64 times shorter than at first, the row has settled.

    Args:
        num_rows: number of rows.
        learning_rate: step size at first.
        tolerance: nats.

    Attributes:
        rates: step size of each row, zero where it has settled.
        settled: which rows have.

    Example:
        >>> rule = Settling(2, 0.1, 0.01)
        >>> for _ in range(5):
        ...     new = rule.heard(np.tile([0.0, 0.0], (10, 1)))
        >>> new.tolist(), rule.rates.tolist()
        ([True, True], [0.0, 0.0])
    """

    def __init__(self, num_rows: int, learning_rate: float, tolerance: float) -> None:
        self.tolerance = tolerance
        self.rates = np.full(num_rows, learning_rate)
        self.settled = np.zeros(num_rows, bool)
        self._cuts = np.zeros(num_rows, int)
        self._last: np.ndarray | None = None

    def heard(self, bounds: Float[np.ndarray, "steps rows"]) -> Bool[np.ndarray, " rows"]:
        """Take the bounds of a window and tell which rows settled with it.

        Args:
            bounds: the bound of each step and row.
        """
        last, self._last = self._last, np.asarray(bounds, float)
        if last is None:
            return np.zeros_like(self.settled)
        gain = self._last - last
        error = gain.std(0, ddof=1) / len(gain) ** 0.5
        slow = ~self.settled & (gain.mean(0) <= np.maximum(self.tolerance, error))
        self._cuts += slow
        new = slow & (self._cuts > _CUTS)
        self.settled |= new
        self.rates = np.where(slow, self.rates / _SHRINK, self.rates)
        self.rates[self.settled] = 0.0
        return new


def own_name(site: str, part: str) -> str:
    """Return the name of a datum's own parameters of a site.

    Example:
        >>> own_name("z", "loc")
        'own_z_loc'
    """
    return f"{PREFIX}_{site}_{part}"


def check_options(
    num_steps: int | None,
    max_steps: int,
    num_particles: int,
    learning_rate: float,
    tolerance: float,
    batch_size: int | None,
) -> None:
    """Refuse options of a refinement that are no such numbers.

    Raises:
        ValueError: naming them.
    """
    checks.check_particles(num_particles, batch_size)
    evidence_checks.check_counts(num_steps=num_steps, max_steps=max_steps)
    flow_checks.positive("learning_rate", learning_rate)
    flow_checks.positive("tolerance", tolerance)


def check_refinable(verb: str, has_guide: bool, local: bool, latents: Sequence[str]) -> None:
    """Refuse what has no latents of each datum.

    Args:
        verb: name of the verb.
        has_guide: whether there is a guide.
        local: whether all sites stand in data plates.
        latents: latents of the guide in data plates.

    Raises:
        ValueError: as said.
    """
    if not has_guide:
        raise ValueError(f"{verb} is about a guide, and there is none. Pass the guide of the fit.")
    if not latents:
        raise ValueError(
            f"{verb} is about latents of each datum, and the guide has none in the data plate. Put "
            "them into `with plate('data', len(x))`."
        )
    if not local:
        raise ValueError(
            f"{verb} needs every latent and every observed site to stand in the data plate, so "
            "that each datum has a bound of its own. Hold what the rows share: fix latents outside "
            "with the language's `condition` or `substitute` handler, at draws or means."
        )


def check_independent(verb: str, independent: bool) -> None:
    """Refuse rows that touch each other.

    Raises:
        ValueError: as said.
    """
    if not independent:
        raise ValueError(
            f"{verb} moves each datum's parameters alone, but here the weight of one row depends "
            "on another row (batch statistics, or a sum over rows). Fix the statistics first."
        )


def check_points(verb: str, names: Sequence[str]) -> None:
    """Refuse guides that are a point.

    Raises:
        ValueError: naming the sites.
    """
    if names:
        raise ValueError(
            f"{verb} needs a guide with a density, but it gives {checks.quote(names)} one value "
            "only, as a MAP guide does."
        )


def check_fit(verb: str, fit: Any) -> None:
    """Refuse what is no fit: the data, where it was forgotten.

    Raises:
        TypeError: as said.
    """
    if fit is not None and not isinstance(fit, Mapping) and not hasattr(fit, "params"):
        raise TypeError(
            f"{verb} takes a Fit, or its params, after model and guide and before the data, not a "
            f"{type(fit).__name__}: dg.{verb}(model, guide, fit, x)."
        )


def check_draws(num_rows: int, num_particles: int) -> None:
    """Refuse a single draw of a single row, of which no standard error can be told.

    Raises:
        ValueError: as said.
    """
    if num_rows < 2 and num_particles < 2:
        raise ValueError(
            "amortization_gap of a single row takes its standard errors from the row's draws: let "
            f"num_particles be two or more, got {num_particles}."
        )


def check_kept(names: Sequence[str]) -> None:
    """Refuse a guide of whose distributions nothing can be moved.

    Raises:
        ValueError: as said.
    """
    if not names:
        raise ValueError(
            "the distributions of the guide in the data plate have no parameters that a datum "
            "could have of its own."
        )


def cannot_move(site: str, kind: str) -> TypeError:
    """Return the error about a distribution that cannot be made anew from moved parameters."""
    return TypeError(
        f"guide site '{site}': a {kind} cannot be made anew from parameters of each datum. Use a "
        "distribution of the language whose constructor takes the parameters that it constrains, "
        "a transformed one of it, a mixture of such, or a flow of dg.flows with a context."
    )


def parameters_of(constrained: Sequence[str]) -> list[str]:
    """Return the parameters that a distribution is made of, one of each set of alternatives.

    Args:
        constrained: all that it names.

    Example:
        >>> parameters_of(["loc", "covariance_matrix", "precision_matrix", "scale_tril"])
        ['loc', 'scale_tril']
        >>> parameters_of(["probs", "logits"])
        ['logits']
    """
    names = list(constrained)
    for kept, others in (
        ("scale_tril", ("covariance_matrix", "precision_matrix")),
        ("logits", ("probs",)),
    ):
        if kept in names:
            names = [name for name in names if name not in others]
    return names


def joined_losses(parts: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
    """Return the mean loss of each step over chunks of rows; one that has ended keeps its last.

    Args:
        parts: number of rows and losses of each.

    Example:
        >>> joined_losses([(1, np.array([3.0, 1.0])), (3, np.array([1.0]))]).tolist()
        [1.5, 1.0]
    """
    longest, rows = max(len(losses) for _, losses in parts), sum(size for size, _ in parts)
    padded = [size * np.pad(x, (0, longest - len(x)), mode="edge") for size, x in parts]
    return np.sum(padded, 0) / rows
