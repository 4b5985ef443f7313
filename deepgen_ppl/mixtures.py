"""What a mixture or a naive Bayes classifier is made of, and its M step, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl import conjugate as conjugate_
from deepgen_ppl import relabelling
from deepgen_ppl.expectation import kmeans_start
from deepgen_ppl.families import Parameter
from deepgen_ppl.moments import Cells, Values

KINDS = ("point", "dirichlet", "stick_breaking")
_LEAST_WEIGHT = 1e-10
_NAMES = {"bernoulli": "probs", "categorical": "probs", "poisson": "rate"}


class Part(NamedTuple):
    """Columns of the data that one family describes.

    Attributes:
        site: name of their site.
        family: their family.
        columns: their numbers; None for all.
        prefix: what stands before the names of its parameters.
    """

    site: str
    family: Any
    columns: tuple[int, ...] | None = None
    prefix: str = ""

    def of(self, x: Any) -> Any:
        """Return its columns of an array."""
        return x if self.columns is None else x[:, list(self.columns)]


@dataclass(frozen=True)
class Layout:
    """Parts, number of components, and how their weights are known.

    Attributes:
        parts: families by columns.
        num_components: number K of components.
        weights: "point", "dirichlet", "stick_breaking" or "fixed".
        concentration: of the prior of the weights.
        fixed: the weights, where they are fixed.
        has_priors: whether the components' parameters are latent.
        conjugate: the priors of those that have the family's conjugate one, by name.
    """

    parts: tuple[Part, ...]
    num_components: int
    weights: str = "point"
    concentration: float = 1.0
    fixed: tuple[float, ...] = ()
    has_priors: bool = False
    conjugate: Mapping[str, conjugate_.Pair] = field(default_factory=dict)

    def parameters(self, shape: tuple[int, ...]) -> dict[str, Parameter]:
        """Return the components' parameters by name at data of shape (N,) or (N, D)."""
        found = {}
        for part in self.parts:
            event = shape[1:] if part.columns is None else (len(part.columns),)
            for name, parameter in part.family.parameters(self.num_components, event).items():
                found[part.prefix + name] = parameter
        return found

    def relabelled(self, shape: tuple[int, ...]) -> list[str]:
        """Return the names of the parameters that each component has its own of."""
        return [name for name, parameter in self.parameters(shape).items() if parameter.own]

    @property
    def closed(self) -> bool:
        """Whether every part has an M step in closed form."""
        if self.has_priors:
            return all(part.prefix + _NAMES.get(part.family.name, "") in self.conjugate
                       for part in self.parts)  # fmt: skip
        return all(part.family.closed for part in self.parts)

    @property
    def floor(self) -> float:
        """The least variance of its components."""
        return min(getattr(part.family, "floor", 0.0) for part in self.parts)

    def maximise_components(
        self, x: np.ndarray, cells: Cells, responsibilities: np.ndarray, old: Values | None
    ) -> Values:
        """Return the parameters of the components that the M step gives in closed form."""
        found: Values = {}
        for part in self.parts:
            mask = None if cells is None else part.of(cells)
            name = part.prefix + _NAMES.get(part.family.name, "")
            if name in self.conjugate:
                kind, prior = part.family.name, self.shaped_prior(name, np.shape(x))
                after = conjugate_.posterior(kind, prior, part.of(x), responsibilities, mask)
                found[name] = conjugate_.mode(kind, after, part.family.floor)
                continue
            if not part.family.closed:
                continue
            mine = None if old is None else self._own(part, old)
            values = part.family.maximise(part.of(x), responsibilities, mask, mine)
            found |= {part.prefix + name: value for name, value in values.items()}
        return found

    def shaped_prior(self, name: str, shape: tuple[int, ...]) -> conjugate_.Pair:
        """Return a conjugate prior at the shape of its parameter, for data of shape (N, ...)."""
        wanted = self.parameters(shape)[name].shape
        first, second = self.conjugate[name]
        second = None if second is None else np.broadcast_to(second, wanted)
        return conjugate_.Pair(np.broadcast_to(first, wanted), second)

    def maximise_weights(self, responsibilities: Float[np.ndarray, "N K"]) -> Values:
        r"""Return the weights, or the sticks, that the M step gives.

        \[ w_k \propto n_k + \alpha - 1, \qquad
           v_k = \frac{n_k}{n_k + \sum_{j > k} n_j + \alpha - 1} \]
        """
        counts = responsibilities.sum(0)
        if self.weights == "fixed":
            return {}
        if self.weights == "stick_breaking":
            behind = np.cumsum(counts[::-1])[::-1][1:]
            share = counts[:-1] / np.maximum(counts[:-1] + behind + self.concentration - 1, 1e-300)
            return {"sticks": np.clip(share, _LEAST_WEIGHT, 1 - 1e-7)}
        more = self.concentration - 1 if self.weights == "dirichlet" else 0.0
        weights = np.maximum((counts + more) / (counts + more).sum(), _LEAST_WEIGHT)
        return {"weights": weights / weights.sum()}

    def start(
        self, x: np.ndarray, cells: Cells, labels: np.ndarray | None, rng: np.random.Generator
    ) -> Float[np.ndarray, "N K"]:
        """Return responsibilities to begin with: labelled rows alone, or k-means++ groups."""
        if labels is not None and (labels >= 0).any():
            found = np.zeros((len(x), self.num_components))
            known = labels >= 0
            found[known, labels[known]] = 1.0
            return found
        rows = np.asarray(x, float).reshape(len(x), -1)
        seen = np.ones(rows.shape, bool) if cells is None else cells.reshape(rows.shape)
        middle = np.where(seen, rows, 0.0).sum(0) / np.maximum(seen.sum(0), 1)
        centred = np.where(seen, rows - middle, 0.0)
        spread = np.sqrt((centred**2).mean(0))
        return kmeans_start(
            centred / np.where(spread > 0, spread, 1.0), self.num_components, rng
        )  # fmt: skip

    def check(self, x: Any, mask: Any, labels: Any = None) -> tuple[np.ndarray, Cells, Any]:
        """Return data as NumPy arrays after checking them by site, row and value.

        Raises:
            ValueError: a shape, a cell or a label that does not fit.
        """
        rows = np.asarray(x, float)
        if rows.ndim not in (1, 2) or not rows.size:
            raise ValueError(f"x must have the shape (N,) or (N, D), not {rows.shape}.")
        cells = None if mask is None else np.asarray(mask)
        if cells is not None and (cells.shape != rows.shape or cells.dtype != bool):
            raise ValueError(
                f"mask must be a bool array of x's shape {rows.shape}, True where a cell is "
                f"observed; it has shape {cells.shape} and dtype {cells.dtype}."
            )
        for part in self.parts:
            check_columns(part.columns, rows.shape)
            mine = part.of(rows)
            seen = None if cells is None else part.of(cells).reshape(len(rows), -1)
            check_joint(part, mask is not None)
            trouble = part.family.trouble(mine.reshape(len(rows), -1), seen)
            if trouble:
                raise ValueError(f"the data do not suit site '{part.site}': {trouble}.")
        return rows, cells, _labels(labels, len(rows), self.num_components)

    def named_weights(self, values: Mapping[str, Any]) -> np.ndarray:
        """Return the weights of values or draws that hold weights, or sticks, or neither."""
        if self.weights == "fixed":
            return np.asarray(self.fixed)
        if self.weights == "stick_breaking":
            return relabelling.weights(np.asarray(values["sticks"]))
        return np.asarray(values["weights"])

    def _own(self, part: Part, values: Values) -> Values:
        names = {n: n.removeprefix(part.prefix) for n in values if n.startswith(part.prefix)}
        return {short: values[name] for name, short in names.items()}


def layout(
    parts: Sequence[Part],
    num_components: Any,
    weights: Any,
    concentration: float,
    has_priors: bool,
    conjugate: Mapping[str, conjugate_.Pair] | None = None,
) -> Layout:
    """Return a checked layout.

    Args:
        parts: families by columns.
        num_components: number of components, None where `weights` tells.
        weights: None, one of "point", "dirichlet", "stick_breaking", or the weights.
        concentration: of the prior of the weights.
        has_priors: whether the components' parameters are latent.
        conjugate: conjugate priors by name.

    Raises:
        ValueError: a number of components below 1, or weights that are none.
    """
    fixed: tuple[float, ...] = ()
    if weights is None:
        weights = "dirichlet" if has_priors else "point"
    if not isinstance(weights, str):
        given = np.asarray(weights, float)
        if given.ndim != 1 or (given < 0).any() or abs(given.sum() - 1) > 1e-6:
            raise ValueError(
                f"weights must be positive numbers that sum to one, or one of {KINDS}; they are "
                f"{given.tolist()}."
            )
        fixed, weights = tuple((given / given.sum()).tolist()), "fixed"
    elif weights not in KINDS:
        raise ValueError(f"weights must be one of {KINDS} or an array, not {weights!r}.")
    if num_components is None and fixed:
        num_components = len(fixed)
    if isinstance(num_components, bool) or not isinstance(num_components, int | np.integer):
        raise ValueError(f"num_components must be a whole number, got {num_components!r}.")
    if num_components < 1 or (weights == "stick_breaking" and num_components < 2):
        raise ValueError(f"num_components={num_components} with weights={weights!r} are too few.")
    if fixed and len(fixed) != num_components:
        raise ValueError(f"{len(fixed)} weights are given for {num_components} components.")
    if not 0 < concentration < np.inf:
        raise ValueError(f"concentration must be a positive number, got {concentration!r}.")
    options = (weights, float(concentration), fixed, has_priors, dict(conjugate or {}))
    return Layout(tuple(parts), int(num_components), *options)


def check_climb(layout: Layout) -> None:
    """Refuse EM where the prior of the weights has no highest point.

    Raises:
        ValueError: its concentration is below one.
    """
    if layout.weights in ("dirichlet", "stick_breaking") and layout.concentration < 1:
        raise ValueError(
            f"the prior of the weights with concentration={layout.concentration:g} has no maximum, "
            "so neither has EM's objective: take 1 or more, or sample by mcmc."
        )


def check_columns(columns: tuple[int, ...] | None, shape: tuple[int, ...]) -> None:
    """Refuse columns that the data lack.

    Raises:
        ValueError: naming them.
    """
    if columns is None:
        return
    width = shape[1] if len(shape) > 1 else 0
    missing = [c for c in columns if not 0 <= c < width]
    if missing:
        raise ValueError(f"x of shape {shape} has no column {missing[0]}.")


def check_joint(part: Part, masked: bool) -> None:
    """Refuse missing cells of columns that depend on each other within a component.

    Raises:
        ValueError: as said.
    """
    if masked and part.family.joint:
        raise ValueError(
            f"site '{part.site}': {part.family.name} components with this covariance are of whole "
            "rows, so that no cell may be missing. Use covariance='diagonal', or drop the mask."
        )


def check_names(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Refuse names that are none of the parameters'.

    Raises:
        ValueError: naming one.
    """
    for name in given:
        if name not in known:
            raise ValueError(
                f"{what} has '{name}', which the components lack; their parameters are "
                f"{', '.join(map(repr, known))}."
            )


def _labels(labels: Any, num_rows: int, num_classes: int) -> Int[np.ndarray, " N"] | None:
    if labels is None:
        return None
    found = np.asarray(labels)
    if found.shape != (num_rows,):
        raise ValueError(f"y must have the shape ({num_rows},), not {found.shape}.")
    bad = (found != np.floor(found)) | (found < -1) | (found >= num_classes)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"y of row {row} is {found[row]:g}: classes are 0 to {num_classes - 1}, and -1 where "
            "the class is unknown."
        )
    return found.astype(int)
