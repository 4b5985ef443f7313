"""Families of mixture components: their parameters, and what maximises a weighted log density.

A family says which parameters K components have at data of a given event shape, and maximises

    sum_n r_nk log p(x_n | theta_k)

over them in closed form, or by the root of one monotone function, from rows x and weights r. It
knows nothing of the languages: the wings make native distributions of the same parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from deepgen_ppl.moments import (
    TINY,
    Cells,
    Values,
    by_column,
    concentration,
    degrees_of_freedom,
    distances,
    means,
    moments_of_cells,
    scatter,
)

COVARIANCES = ("full", "tied", "diagonal", "spherical")


class Parameter(NamedTuple):
    """One parameter of the components of a mixture.

    Attributes:
        shape: its shape, the axis of the components first where each has its own.
        support: "real", "positive", "unit", "simplex" or "correlation" (Cholesky factors).
        own: whether each component has its own.
    """

    shape: tuple[int, ...]
    support: str
    own: bool = True


class Family(Protocol):
    """What a mixture asks of the family of its components."""

    name: str
    joint: bool
    """Whether columns depend on each other within a component, so that none may be missing."""
    closed: bool
    """Whether `maximise` is there; else the wing climbs along gradients."""

    def parameters(self, num_components: int, event: tuple[int, ...]) -> dict[str, Parameter]:
        """Return the parameters at data of an event shape, () or (D,)."""
        ...

    def maximise(
        self, x: np.ndarray, weights: np.ndarray, cells: Cells, old: Values | None
    ) -> Values:
        """Return the parameters that maximise the weighted log density (raise it, for EM)."""
        ...

    def trouble(self, x: Float[np.ndarray, "N D"], cells: Cells) -> str:
        """Say what is wrong with data of this family; empty where nothing is."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """Normal components: spherical, diagonal, tied or full covariance."""

    covariance: str = "full"
    floor: float = 1e-6
    name: str = "gaussian"
    closed: bool = True

    @property
    def joint(self) -> bool:
        """Whether columns are correlated."""
        return self.covariance in ("full", "tied")

    def parameters(self, num_components: int, event: tuple[int, ...]) -> dict[str, Parameter]:
        """Return `loc`, `scale` and, where columns are correlated, `correlation_tril`."""
        return {"loc": Parameter((num_components, *event), "real"),
                **_scales(self.covariance, num_components, event)}  # fmt: skip

    def maximise(
        self, x: np.ndarray, weights: np.ndarray, cells: Cells, old: Values | None
    ) -> Values:
        """Return weighted means and covariances, `floor` added to the variances."""
        rows, covariance = _columns(x), _kind(self.covariance, x)
        if cells is not None and not self.joint:
            loc, variance = moments_of_cells(rows, weights, cells)
            found = by_column(variance + self.floor, covariance)
        else:
            counts = weights.sum(0) + TINY
            loc = weights.T @ rows / counts[:, None]
            found = scatter(rows, loc, weights, counts, covariance, self.floor)
        return _shaped({"loc": loc, **found}, x.shape[1:])

    def trouble(self, x: Float[np.ndarray, "N D"], cells: Cells) -> str:
        """Accept all finite numbers."""
        return ""


@dataclass(frozen=True)
class StudentT:
    """Multivariate Student-t components: Gaussian ones that outliers do not move."""

    covariance: str = "full"
    df: float | None = None
    floor: float = 1e-6
    name: str = "student_t"
    joint: bool = True
    closed: bool = True

    def parameters(self, num_components: int, event: tuple[int, ...]) -> dict[str, Parameter]:
        """Return `loc`, `scale`, `correlation_tril`, and `df` where it is learned."""
        found = {"loc": Parameter((num_components, *event), "real"),
                 **_scales(self.covariance, num_components, event)}  # fmt: skip
        return found if self.df else {**found, "df": Parameter((num_components,), "positive")}

    def maximise(
        self, x: np.ndarray, weights: np.ndarray, cells: Cells, old: Values | None
    ) -> Values:
        """Return one step of EM over the rows' precisions as well (Peel and McLachlan, 2000)."""
        from scipy.special import digamma

        rows, counts = _columns(x), weights.sum(0) + TINY
        degrees = np.full(weights.shape[1], self.df or 10.0)
        precision = np.ones_like(weights)
        if old is not None:
            degrees = np.asarray(old.get("df", degrees), float)
            distance = distances(rows, old)
            precision = (degrees + rows.shape[1]) / (degrees + distance)
        tilted = weights * precision
        loc = tilted.T @ rows / (tilted.sum(0) + TINY)[:, None]
        found: Values = {
            "loc": loc,
            **scatter(rows, loc, tilted, counts, _kind(self.covariance, x), self.floor),
        }  # fmt: skip
        if self.df is None:
            spread = (weights * (np.log(precision) - precision)).sum(0) / counts
            half = (degrees + rows.shape[1]) / 2
            target = 1 + spread + (digamma(half) - np.log(half) if old is not None else 0)
            found["df"] = degrees_of_freedom(target) if old is not None else degrees
        return _shaped(found, x.shape[1:])

    def trouble(self, x: Float[np.ndarray, "N D"], cells: Cells) -> str:
        """Accept all finite numbers."""
        return ""


@dataclass(frozen=True)
class Bernoulli:
    """Binary columns, independent within a component."""

    floor: float = 1e-6
    name: str = "bernoulli"
    joint: bool = False
    closed: bool = True

    def parameters(self, num_components: int, event: tuple[int, ...]) -> dict[str, Parameter]:
        """Return `probs`."""
        return {"probs": Parameter((num_components, *event), "unit")}

    def maximise(
        self, x: np.ndarray, weights: np.ndarray, cells: Cells, old: Values | None
    ) -> Values:
        """Return weighted frequencies of ones, at least `floor` away from zero and one."""
        probs = means(_columns(x), weights, cells)
        return _shaped({"probs": np.clip(probs, self.floor, 1 - self.floor)}, x.shape[1:])

    def trouble(self, x: Float[np.ndarray, "N D"], cells: Cells) -> str:
        """Ask for zeros and ones."""
        return _outside((x != 0) & (x != 1), x, cells, "0 or 1")


@dataclass(frozen=True)
class Categorical:
    """Columns of states 0 to `num_states` - 1, independent within a component."""

    num_states: int
    floor: float = 1e-6
    name: str = "categorical"
    joint: bool = False
    closed: bool = True

    def parameters(self, num_components: int, event: tuple[int, ...]) -> dict[str, Parameter]:
        """Return `probs`, a simplex for each column."""
        return {"probs": Parameter((num_components, *event, self.num_states), "simplex")}

    def maximise(
        self, x: np.ndarray, weights: np.ndarray, cells: Cells, old: Values | None
    ) -> Values:
        """Return weighted frequencies of the states, at least `floor`."""
        rows = _columns(x)
        seen = 1.0 if cells is None else cells
        counts = [weights.T @ ((rows == state) * seen) for state in range(self.num_states)]
        probs = np.stack(counts, -1) + TINY
        probs = np.maximum(probs / probs.sum(-1, keepdims=True), self.floor)
        return _shaped({"probs": probs / probs.sum(-1, keepdims=True)}, x.shape[1:])

    def trouble(self, x: Float[np.ndarray, "N D"], cells: Cells) -> str:
        """Ask for whole numbers below `num_states`."""
        bad = (x != np.floor(x)) | (x < 0) | (x >= self.num_states)
        return _outside(bad, x, cells, f"a whole number from 0 to {self.num_states - 1}")


@dataclass(frozen=True)
class Poisson:
    """Counts, independent within a component."""

    floor: float = 1e-6
    name: str = "poisson"
    joint: bool = False
    closed: bool = True

    def parameters(self, num_components: int, event: tuple[int, ...]) -> dict[str, Parameter]:
        """Return `rate`."""
        return {"rate": Parameter((num_components, *event), "positive")}

    def maximise(
        self, x: np.ndarray, weights: np.ndarray, cells: Cells, old: Values | None
    ) -> Values:
        """Return weighted means, at least `floor`."""
        rate = np.maximum(means(_columns(x), weights, cells), self.floor)
        return _shaped({"rate": rate}, x.shape[1:])

    def trouble(self, x: Float[np.ndarray, "N D"], cells: Cells) -> str:
        """Ask for whole numbers from zero."""
        return _outside((x != np.floor(x)) | (x < 0), x, cells, "a count: 0, 1, 2, ...")


@dataclass(frozen=True)
class NegativeBinomial:
    r"""Counts of variance \(m + m^2 / c\) at mean m and concentration c, independent within one."""

    floor: float = 1e-6
    name: str = "negative_binomial"
    joint: bool = False
    closed: bool = True

    def parameters(self, num_components: int, event: tuple[int, ...]) -> dict[str, Parameter]:
        """Return `mean` and `concentration`."""
        shape = (num_components, *event)
        return {n: Parameter(shape, "positive") for n in ("mean", "concentration")}

    def maximise(
        self, x: np.ndarray, weights: np.ndarray, cells: Cells, old: Values | None
    ) -> Values:
        """Return weighted means, and the concentrations whose score is zero (below 1,000)."""
        rows = _columns(x)
        mean = np.maximum(means(rows, weights, cells), self.floor)
        found = np.empty_like(mean)
        for column in range(rows.shape[1]):
            values, place = np.unique(rows[:, column], return_inverse=True)
            mine = weights if cells is None else weights * cells[:, column : column + 1]
            table = np.zeros((len(values), mine.shape[1]))
            np.add.at(table, place, mine)
            found[:, column] = concentration(values, table.T, mean[:, column])
        return _shaped({"mean": mean, "concentration": found}, x.shape[1:])

    def trouble(self, x: Float[np.ndarray, "N D"], cells: Cells) -> str:
        """Ask for whole numbers from zero."""
        return _outside((x != np.floor(x)) | (x < 0), x, cells, "a count: 0, 1, 2, ...")


_FAMILIES: dict[str, Any] = {
    "gaussian": Gaussian,
    "student_t": StudentT,
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
}


def family(name: str, **options: Any) -> Family:
    """Return a family by its name, with those of the options that it takes.

    Args:
        name: "gaussian", "student_t", "bernoulli", "categorical", "poisson" or "negative_binomial".
        **options: `covariance`, `df`, `num_states`, `floor`; None stands for a family's own.

    Raises:
        ValueError: an unknown name, or an option that the family lacks or cannot take.

    Example:
        >>> family("gaussian", covariance="tied").parameters(3, (2,))["loc"].shape
        (3, 2)
    """
    if name not in _FAMILIES:
        raise ValueError(
            f"there are no components {name!r}: choose {', '.join(map(repr, _FAMILIES))}, or a "
            "distribution of the language."
        )
    made = _FAMILIES[name]
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in made.__dataclass_fields__:
            raise ValueError(f"{name} components take no {key}=.")
    if name == "categorical":
        states = given.get("num_states")
        if isinstance(states, bool) or not isinstance(states, int) or states < 2:
            raise ValueError(f"categorical components need num_states= of 2 or more, not {states}.")
    if given.get("covariance", "full") not in COVARIANCES:
        raise ValueError(
            f"covariance must be one of {', '.join(map(repr, COVARIANCES))}, not "
            f"{given['covariance']!r}."
        )
    for key in ("df", "floor"):
        if key in given and not 0 < given[key] < np.inf:
            raise ValueError(f"{key} must be a positive number, got {given[key]!r}.")
    return made(**given)


# ------------------------------------------------------------------------------------- helpers


def _scales(
    covariance: str, num_components: int, event: tuple[int, ...]
) -> dict[str, Parameter]:  # fmt: skip
    lead, own = ((), False) if covariance == "tied" else ((num_components,), True)
    if covariance == "spherical" or not event:
        return {"scale": Parameter(lead, "positive", own)}
    found = {"scale": Parameter((*lead, *event), "positive", own)}
    if covariance in ("full", "tied") and event[0] > 1:
        found["correlation_tril"] = Parameter((*lead, *event, *event), "correlation", own)
    return found


def _kind(covariance: str, x: np.ndarray) -> str:
    return "diagonal" if x.ndim == 1 and covariance == "spherical" else covariance


def _columns(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, float).reshape(len(x), -1)


def _shaped(values: Values, event: tuple[int, ...]) -> Values:
    """Drop the axis of the columns where the data have none."""
    if event:
        return values
    return {n: v if n in ("df",) or v.ndim < 1 else _without_column(n, v)
            for n, v in values.items() if n != "correlation_tril"}  # fmt: skip


def _without_column(name: str, value: np.ndarray) -> np.ndarray:
    if name == "scale":
        return value.reshape(value.shape[:-1]) if value.ndim > 1 else value.squeeze()
    return value[:, 0]


def _outside(bad: np.ndarray, x: np.ndarray, cells: Cells, wanted: str) -> str:
    bad = bad if cells is None else bad & cells
    if not bad.any():
        return ""
    row, column = np.argwhere(bad)[0]
    return f"row {row}, column {column} holds {x[row, column]:g}, where {wanted} is asked"
