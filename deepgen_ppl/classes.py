"""Classes and their probabilities: how features are grouped, learned in closed form and judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl import conjugate
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.mixtures import Layout
from deepgen_ppl.moments import Cells, Values


class Reliability(NamedTuple):
    """How often a classifier is right where it says how sure it is.

    Attributes:
        confidence: mean probability of the predicted class, by bin.
        accuracy: share of right predictions, by bin.
        count: rows, by bin.
        ece: expected calibration error, the mean gap of the two over rows.
        log_loss: minus the mean log probability of the true class.
        accuracy_in_all: share of right predictions of all rows.
    """

    confidence: Float[np.ndarray, " B"]
    accuracy: Float[np.ndarray, " B"]
    count: Int[np.ndarray, " B"]
    ece: float
    log_loss: float
    accuracy_in_all: float


def reliability(
    probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"], num_bins: int = 10
) -> Reliability:
    r"""Compare stated confidence with accuracy, in bins of equal width from 1 / C to 1.

    \[ \mathrm{ECE} = \sum_b \frac{n_b}{N} \, |\mathrm{acc}_b - \mathrm{conf}_b| \]

    Args:
        probabilities: of the classes, rows sum to one.
        labels: true classes.
        num_bins: number of bins; empty ones are left out.

    Raises:
        ValueError: shapes that do not fit, or labels that are no class.

    References:
        Guo, Pleiss, Sun, Weinberger: On calibration of modern neural networks. ICML 2017.
        https://arxiv.org/abs/1706.04599

    Example:
        >>> found = reliability(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]), 1)
        >>> round(found.ece, 2), found.accuracy_in_all
        (0.35, 0.5)
    """
    probabilities, labels = np.asarray(probabilities, float), np.asarray(labels, int)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"probabilities {probabilities.shape} and labels {labels.shape} do not fit: pass "
            "(N, C) and (N,)."
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels must be classes from 0 to {probabilities.shape[1] - 1}.")
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(1 / probabilities.shape[1], 1, num_bins + 1)[1:-1]
    place = np.searchsorted(edges, sure, side="left")
    count = np.bincount(place)
    kept = count > 0
    confidence = np.bincount(place, sure, len(count))[kept] / count[kept]
    accuracy = np.bincount(place, right, len(count))[kept] / count[kept]
    true = probabilities[np.arange(len(labels)), labels]
    return Reliability(
        confidence,
        accuracy,
        count[kept],
        float((np.abs(confidence - accuracy) * count[kept]).sum() / len(labels)),
        float(-np.log(np.maximum(true, np.finfo(float).tiny)).mean()),
        float(right.mean()),
    )


def grouped(features: Any) -> dict[str, tuple[int, ...] | None]:
    """Return families and their columns, from one name, a name a column, or a dict.

    Raises:
        TypeError: none of these.
        ValueError: a column of two families, or none.

    Example:
        >>> grouped(["gaussian", "bernoulli", "gaussian"])
        {'gaussian': (0, 2), 'bernoulli': (1,)}
    """
    if isinstance(features, str):
        return {features: None}
    if isinstance(features, Mapping):
        found = {str(name): tuple(map(int, columns)) for name, columns in features.items()}
    elif isinstance(features, Sequence) and all(isinstance(name, str) for name in features):
        names = dict.fromkeys(features)
        found = {n: tuple(i for i, m in enumerate(features) if m == n) for n in names}
    else:
        raise TypeError(
            "features must be a family's name, one name a column, or a dict of names to columns, "
            f"not {features!r}."
        )
    columns = [column for group in found.values() for column in group]
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise ValueError(f"column {twice[0]} is given two families.")
    if not columns or not all(found.values()):
        raise ValueError(f"features={features!r} has a family without columns.")
    return dict(found)


def learn(
    layout: Layout, x: np.ndarray, cells: Cells, labels: Any, num_samples: int, seed: int
) -> tuple[Values, float]:
    """Draw from the posterior of a classifier all of whose rows have labels, and weigh its data.

    Args:
        layout: its parts, with conjugate priors.
        x: the rows.
        cells: which cells are observed.
        labels: the classes.
        num_samples: number of draws.
        seed: seed of the draws.

    Returns:
        Draws by name, (num_samples, ...), and the log evidence of features and labels.

    Raises:
        ValueError: a prior that is not conjugate, or a row without a label.
    """
    if not layout.has_priors or not layout.closed or layout.weights not in ("dirichlet", "fixed"):
        kinds = ", ".join(f"{name} under a {prior}" for name, prior in conjugate.KINDS.items())
        raise ValueError(
            "there is no closed form: every part must have its conjugate prior (" + kinds + ") and "
            "the weights a Dirichlet's. Use em, svi or mcmc."
        )
    if labels is None or (labels < 0).any():
        raise ValueError(
            "the closed form needs the class of every row; em, svi and mcmc sum unknown ones out."
        )
    rng, weights = np.random.default_rng(seed), np.eye(layout.num_components)[labels]
    counts, drawn, total = weights.sum(0), {}, 0.0
    if layout.weights == "fixed":
        total = float((counts * np.log(np.maximum(layout.fixed, 1e-300))).sum())
    else:
        before = conjugate.Pair(np.full(len(counts), layout.concentration))
        after = conjugate.Pair(before.first + counts)
        drawn["weights"] = conjugate.draws("categorical", after, num_samples, rng)
        total = conjugate.log_evidence("categorical", before, after, labels, None)
    for part in layout.parts:
        name = next(n for n in layout.conjugate if n.startswith(part.prefix))
        prior = layout.shaped_prior(name, x.shape)
        mine, seen = part.of(x), None if cells is None else part.of(cells)
        kind = part.family.name
        after = conjugate.posterior(kind, prior, mine, weights, seen)
        drawn[name] = conjugate.draws(kind, after, num_samples, rng)
        total += conjugate.log_evidence(kind, prior, after, mine, seen)
    return drawn, total


def exact_evidence(log_evidence: float, num_draws: int) -> Evidence:
    """Return an evidence that is known."""
    limits = (log_evidence, log_evidence)
    return Evidence(
        log_evidence, 0.0, *limits, float(num_draws), -np.inf, num_draws, method="closed form"
    )


def times_copies(evidence: Evidence | None, num_components: int) -> Evidence:
    """Return an evidence of one naming of the components times the number K! of namings."""
    if evidence is None:
        raise ValueError("there is no evidence to be counted.")
    more = math.lgamma(num_components + 1)
    return replace(
        evidence,
        log_evidence=evidence.log_evidence + more,
        lower_limit=evidence.lower_limit + more,
        upper_limit=evidence.upper_limit + more,
    )


def check_network(num_classes: Any, hidden: Sequence[Any], prior_scale: Any) -> None:
    """Refuse sizes of a classifier that are none.

    Raises:
        ValueError: naming the option.
    """
    sizes = [("num_classes", num_classes, 2), *(("hidden", size, 1) for size in hidden)]
    for name, size, least in sizes:
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < least:
            raise ValueError(f"{name} must be whole numbers of at least {least}, got {size!r}.")
    if prior_scale is not None and not 0 < prior_scale < np.inf:
        raise ValueError(f"prior_scale must be a positive number or None, got {prior_scale!r}.")
