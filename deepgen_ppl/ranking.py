"""Models of the same data, ranked by their evidence."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deepgen_ppl.bounds import aligned


class Ranked(NamedTuple):
    """One model among others.

    Attributes:
        name: The model's name.
        log_evidence: Its log evidence.
        standard_error: Standard error of that.
        difference: Log Bayes factor against the best, 0 or below.
        difference_standard_error: Its standard error; 0 for the best.
        probability: Posterior probability of the model, all being equally probable before.
        method: What estimated the log evidence.
    """

    name: str
    log_evidence: float
    standard_error: float
    difference: float
    difference_standard_error: float
    probability: float
    method: str


class Ranking(tuple[Ranked, ...]):
    """Models from the best to the worst; printing it shows them as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        head = ("model", "log evidence", "se", "difference", "se", "probability", "method")
        lines: list[tuple[str, ...]] = [head]
        for r in self:
            own = (f"{r.log_evidence:.3f}", f"{r.standard_error:.2g}")
            other = (f"{r.difference:.3f}", f"{r.difference_standard_error:.2g}")
            lines.append((r.name, *own, *other, f"{r.probability:.3g}", r.method))
        return "\n".join(aligned(lines, left=(0, 6)))


def rank_by_evidence(
    results: Sequence[Any] | dict[str, Any], names: Sequence[str] | None = None
) -> Ranking:
    r"""Rank models of the same data by their evidence, with uncertainties.

    \[ \log \mathrm{BF}_j = \log \hat p_j(x) - \log \hat p_1(x), \qquad
       p(j \mid x) = \frac{\hat p_j(x)}{\sum_i \hat p_i(x)} \]

    against the best model 1, all models being equally probable before. ArviZ's `compare` ranks by
    prediction (LOO); this ranks by how probable the models made the data, priors included.

    Args:
        results: Posteriors, evidences or bounds, one of each model: a dict by name, or a list.
        names: Names of the models of a list; `"model 0"`, ... when None.

    Returns:
        One entry for each model, the best first.

    Raises:
        ValueError: Fewer than two results, names that do not fit, or a result without evidence.

    Example:
        >>> from deepgen_ppl.evidence import evidence
        >>> results = {"a": evidence(np.zeros(9)), "b": evidence(np.full(9, 2.0))}
        >>> rank_by_evidence(results)
        model  log evidence  se  difference  se  probability  method
        b             2.000   0       0.000   0        0.881  importance sampling
        a             0.000   0      -2.000   0        0.119  importance sampling
    """
    if isinstance(results, dict):
        names, results = list(results), list(results.values())
    from scipy.special import logsumexp

    labels = [f"model {i}" for i in range(len(results))] if names is None else list(names)
    if len(results) < 2 or len(labels) != len(results) or len(set(labels)) != len(labels):
        raise ValueError(
            f"rank_by_evidence needs at least two results and a name of its own for each, got "
            f"{len(results)} results and the names {labels}."
        )
    found = [_evidence_of(name, result) for name, result in zip(labels, results, strict=True)]
    order = np.argsort([-e.log_evidence for e in found], kind="stable")
    best = found[order[0]]
    total = logsumexp([e.log_evidence for e in found])
    return Ranking(
        Ranked(
            labels[i],
            found[i].log_evidence,
            found[i].standard_error,
            found[i].log_evidence - best.log_evidence,
            _apart(found[i], best),
            float(np.exp(found[i].log_evidence - total)),
            found[i].method,
        )
        for i in order
    )


def _apart(one: Any, best: Any) -> float:
    return 0.0 if one is best else float(np.hypot(one.standard_error, best.standard_error))


def _evidence_of(name: str, result: Any) -> Any:
    found = getattr(result, "evidence", result)
    if not hasattr(found, "log_evidence"):
        raise ValueError(
            f"'{name}' has no evidence: a posterior of mcmc gets one by "
            "bridge(posterior, model, *data), others by importance, ais or smc."
        )
    if not np.isfinite(found.log_evidence):
        raise ValueError(f"'{name}' has log evidence {found.log_evidence}: it cannot be ranked.")
    return found
