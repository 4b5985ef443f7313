"""Bounds of log evidence from both sides, each with its standard error, limit and cost."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

_LEVEL_OF_SPREAD, _LEVEL_OF_MARKOV = 0.04, 0.01  # together the 5% that a limit may miss
_WIDTH = 100


class Bound(NamedTuple):
    """One row of a table of bounds.

    Attributes:
        name: What estimated it.
        direction: `"lower"`, `"upper"` or `"approximate upper"`.
        kind: `"stochastic"` (its expectation is a bound) or `"exact"`.
        value: The estimate in nats; the sum over rows where there are rows.
        standard_error: Its standard error.
        limit: One-sided 95% limit of log p(x), below or above as the direction says.
        cost: What it cost, in words.
        assumes: What it assumes beyond that, empty where nothing.
        per_row: Estimates of each row, None where they are global.
        per_row_standard_error: Their standard errors.
        per_row_limit: Their limits.
    """

    name: str
    direction: Literal["lower", "upper", "approximate upper"]
    kind: Literal["stochastic", "exact"]
    value: float
    standard_error: float
    limit: float
    cost: str = ""
    assumes: str = ""
    per_row: Float[np.ndarray, "N"] | None = None
    per_row_standard_error: Float[np.ndarray, "N"] | None = None
    per_row_limit: Float[np.ndarray, "N"] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class EvidenceBounds:
    """Lower and upper bounds of the log evidence; printing it shows them as a table.

    Attributes:
        bounds: The rows of the table.
        posterior: Draws of annealed importance sampling with their evidence, and this table among
            its attributes.
        rows: Name of the data plate where there are bounds of each row.
        data: Data that were simulated from the model, None where they were given.
    """

    bounds: tuple[Bound, ...]
    posterior: Any = field(default=None)
    rows: str | None = None
    data: tuple[Any, ...] | None = None

    @property
    def lower(self) -> Bound:
        """The lower bound whose limit is the highest."""
        return max((b for b in self.bounds if b.direction == "lower"), key=lambda b: b.limit)

    @property
    def upper(self) -> Bound | None:
        """The upper bound whose limit is the lowest, an approximate one where there is no other."""
        above = [b for b in self.bounds if b.direction != "lower"]
        return min(above, key=lambda b: (b.direction != "upper", b.limit)) if above else None

    @property
    def gap(self) -> float:
        """Upper less lower bound in nats; their mean over the rows where there are rows."""
        if self.upper is None:
            return float("nan")
        gap = self.upper.value - self.lower.value
        return gap if self.lower.per_row is None else gap / len(self.lower.per_row)

    @property
    def evidence(self) -> Any:
        """The evidence by annealed importance sampling."""
        return self.posterior.evidence

    def __getitem__(self, name: str) -> Bound:
        """Return the bound of a name."""
        for bound in self.bounds:
            if bound.name == name:
                return bound
        raise KeyError(f"no bound '{name}'; there are {[b.name for b in self.bounds]}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the rows of the table, without the arrays of rows."""
        keep = ("name", "direction", "kind", "value", "standard_error", "limit", "cost", "assumes")
        rows = [{name: getattr(bound, name) for name in keep} for bound in self.bounds]
        return {"bounds": rows, "rows": self.rows, "gap": self.gap}

    def attrs(self) -> dict[str, Any]:
        """Attributes for a DataTree: the table as JSON."""
        table = self.to_dict()
        for row in (*table["bounds"], table):
            for name, value in row.items():
                if isinstance(value, float) and not np.isfinite(value):
                    row[name] = str(value)  # JSON has no infinity
        return {"evidence_bounds": json.dumps(table, allow_nan=False)}

    def __repr__(self) -> str:
        return _table(self)


def lower_bound(
    name: str, log_weights: Float[np.ndarray, "K ..."], *, cost: str = "", assumes: str = ""
) -> Bound:
    r"""Return the lower bound of weights whose mean is unbiased.

    \[ \hat L = \log \frac1K \sum_k w_k, \qquad \mathbb E\, \hat L \le \log p(x) \]

    The K weights are cut into about \(\sqrt K\) groups. A group's own bound is below log p(x) in
    expectation too, so the lower limit of its mean by Student's t is one of log p(x): where weights
    are heavy-tailed the bounds of the groups are low, not the limit high. Markov's inequality
    grants \(\hat L - \log 100\) beside it, with 99% confidence. The limit is the higher one; t is
    taken at 96%, so that both together miss in at most 5 of 100 cases.

    Args:
        name: What made the weights.
        log_weights: Log weights of K independent particles or chains, and of each row.
        cost: What they cost, in words.
        assumes: What the bound assumes.

    Raises:
        ValueError: There are fewer than four weights.

    References:
        Burda, Grosse, Salakhutdinov: Importance weighted autoencoders. 2016.
        https://arxiv.org/abs/1509.00519

        Grosse, Ghahramani, Adams: Sandwiching the marginal likelihood using bidirectional Monte
        Carlo. 2015. https://arxiv.org/abs/1511.02543

    Example:
        >>> log_w = np.random.default_rng(0).normal(-0.5, 1.0, 1000)  # of mean weight 1
        >>> bound = lower_bound("importance sampling", log_w)
        >>> bound.limit < 0.0 < bound.limit + 0.2
        True
    """
    return _grouped(name, np.asarray(log_weights, np.float64), 1.0, "lower", cost, assumes)


def upper_bound(
    name: str,
    log_weights: Float[np.ndarray, "K ..."],
    *,
    cost: str = "",
    approximate: bool = False,
    assumes: str = "",
) -> Bound:
    r"""Return the upper bound of weights whose reciprocals are unbiased.

    \[ \hat U = -\log \frac1K \sum_k \frac{1}{w_k}, \qquad \mathbb E\, \frac1{w_k} = \frac1{p(x)},
       \qquad \mathbb E\, \hat U \ge \log p(x) \]

    The limit is that of `lower_bound`, mirrored.

    Args:
        name: What made the weights.
        log_weights: Log weights of K independent chains, and of each row.
        cost: What they cost, in words.
        approximate: Whether the chains began at draws that are only close to exact ones.
        assumes: What the bound assumes.

    Raises:
        ValueError: There are fewer than four weights.

    Example:
        >>> log_w = np.random.default_rng(0).normal(0.5, 1.0, 1000)  # 1 / w has mean 1
        >>> bound = upper_bound("reverse annealing", log_w)
        >>> bound.limit > 0.0 > bound.limit - 0.2
        True
    """
    direction = "approximate upper" if approximate else "upper"
    return _grouped(name, np.asarray(log_weights, np.float64), -1.0, direction, cost, assumes)


def mean_bound(name: str, log_weights: Float[np.ndarray, "K ..."], *, cost: str = "") -> Bound:
    r"""Return the evidence lower bound, the mean of log weights.

    \[ \hat L = \frac1K \sum_k \log w_k \]

    with the lower limit of Student's t over the K weights.

    Args:
        name: What made the weights.
        log_weights: Log weights of K independent particles, and of each row.
        cost: What they cost, in words.

    Example:
        >>> log_w = np.random.default_rng(0).normal(-0.5, 1.0, 1000)
        >>> round(mean_bound("ELBO", log_w).value, 1)
        -0.5
    """
    from scipy.special import stdtrit

    log_w = np.asarray(log_weights, np.float64)
    _check(name, log_w)
    wide = float(stdtrit(len(log_w) - 1, 0.95))
    return _bound(name, "lower", log_w.mean(axis=0), log_w, -wide, None, cost, "")


def aligned(lines: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Return the lines of a table, their cells under each other.

    Args:
        lines: Cells of each line.
        left: Columns that begin at the same place; the others end there.

    Example:
        >>> aligned([("a", "1"), ("bc", "10")], left=[0])
        ['a    1', 'bc  10']
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    pads = [str.ljust if i in left else str.rjust for i in range(len(widths))]
    return [
        "  ".join(
            pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]


def _grouped(
    name: str, log_w: np.ndarray, sign: float, direction: Any, cost: str, assumes: str
) -> Bound:
    from scipy.special import logsumexp, stdtrit

    _check(name, log_w)
    num = len(log_w)
    groups = int(np.clip(round(np.sqrt(num)), 2, 20))
    parts = np.array_split(sign * log_w, groups)
    bounds = sign * np.stack([logsumexp(p, axis=0) - np.log(len(p)) for p in parts])
    value = sign * (logsumexp(sign * log_w, axis=0) - np.log(num))
    wide = -sign * float(stdtrit(groups - 1, 1.0 - _LEVEL_OF_SPREAD))
    markov = sign * np.log(_LEVEL_OF_MARKOV)
    return _bound(name, direction, value, bounds, wide, markov, cost, assumes)


def _bound(
    name: str, direction: Any, value: np.ndarray, samples: np.ndarray, wide: float,
    markov: float | None, cost: str, assumes: str,
) -> Bound:  # fmt: skip
    """Return a bound with the limit of the mean of independent samples of it."""

    def limits(value: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(invalid="ignore"):
            error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
            error = np.where(np.isfinite(error), error, np.inf)
            limit = np.where(np.isfinite(error), samples.mean(axis=0) + wide * error, wide * np.inf)
        if markov is not None:
            best = np.fmax if wide < 0.0 else np.fmin
            limit = best(limit, value + markov)
        return error, limit

    rows = value.ndim == 1
    total, sums = (value.sum(), samples.sum(axis=1)) if rows else (value, samples)
    error, limit = limits(total, sums)
    own = limits(value, samples) if rows else (None, None)
    return Bound(
        name,
        direction,
        "stochastic",
        float(total),
        float(error),
        float(limit),
        cost,
        assumes,
        value if rows else None,
        *own,
    )


def _check(name: str, log_w: np.ndarray) -> None:
    if log_w.ndim not in (1, 2) or len(log_w) < 4:
        raise ValueError(
            f"{name}: a limit needs at least 4 independent weights, of shape (K,) or (K, N), not "
            f"{log_w.shape}. Take more chains or particles."
        )
    if np.isnan(log_w).any() or np.isposinf(log_w).any():
        raise ValueError(f"{name}: some log weights are NaN or +inf.")


def _table(found: EvidenceBounds) -> str:
    head = ("estimate", "bound", "kind", "value", "se", "95% limit", "cost")
    marks, notes = {}, []
    for bound in found.bounds:
        if bound.assumes and bound.assumes not in marks:
            marks[bound.assumes] = "*" * (len(marks) + 1)
            notes += textwrap.wrap(f"{marks[bound.assumes]} {bound.assumes}", _WIDTH)
    lines: list[tuple[str, ...]] = [head]
    for b in found.bounds:
        sign = {"lower": ">=", "upper": "<="}.get(b.direction, "<~")
        name = b.name + marks.get(b.assumes, "")
        numbers = (f"{b.value:.3f}", f"{b.standard_error:.2g}", f"{sign} {b.limit:.3f}")
        lines.append((name, b.direction, b.kind, *numbers, b.cost))
    shown = aligned(lines, left=(0, 1, 2, 6))
    title = "log evidence in nats"
    per_row = found.lower.per_row
    if per_row is not None:
        title += f", sums over {len(per_row)} rows of '{found.rows}'"
    title += ", of data simulated from the model" if found.data is not None else ""
    rule = "-" * max(len(line) for line in shown)
    text = [title, shown[0], rule, *shown[1:]]
    if found.upper is not None:
        each = f", {found.gap:.3f} a row" if per_row is not None else ""
        total = found.upper.value - found.lower.value
        text.append(f"gap between {found.lower.name} and {found.upper.name}: {total:.3f}{each}")
    return "\n".join([*text, *notes, "each limit holds with 95% confidence by itself"])
