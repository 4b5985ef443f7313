"""Discrete latents as one vector of numbers of values: where each site stands, what it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl.checks import quote
from deepgen_ppl.data_checks import PASS_NONE
from deepgen_ppl.posterior import Posterior

MOST_DISCREPANCY = 1e-3
"""Relative difference of terms put together in a sweep from the whole, up to which blocks hold."""

CHECKED_EVERY = 8
"""Steps of a run of which one checks its blocks."""

LEAST_TOLD = 0.5
"""Correlation of first-order differences with true ones above which they propose changes."""

_LOOKED_AT = 1000


class Place(NamedTuple):
    """Where a discrete site stands in the vector of coordinates.

    Attributes:
        start: Its first coordinate.
        shape: Shape of its coordinates, each with a finite support of its own.
        support: The values of each coordinate, `(n, K, *event)`; n is 1 where all have the same,
            and shorter supports repeat their last value.
    """

    start: int
    shape: tuple[int, ...]
    support: np.ndarray

    @property
    def size(self) -> int:
        """Number of its coordinates."""
        return math.prod(self.shape)

    @property
    def is_counting(self) -> bool:
        """Whether values are their own numbers 0, 1, 2, ..."""
        support = self.support
        return support.ndim == 2 and np.array_equal(support, np.arange(support.shape[1])[None])

    @property
    def cardinality(self) -> Int[np.ndarray, " n"]:
        """How many different values each coordinate has."""
        flat = self.support.reshape(*self.support.shape[:2], -1)
        fresh = 1 + (flat[:, 1:] != flat[:, :-1]).any(-1).sum(1)
        return np.broadcast_to(fresh, (self.size,))


class Coordinates(NamedTuple):
    """The discrete latents of a program as one vector.

    A coordinate holds the number of its value, counted from 0 in the order of its support.

    Attributes:
        places: Where each site stands, in order.
    """

    places: Mapping[str, Place]

    @classmethod
    def of(cls, supports: Mapping[str, np.ndarray], shapes: Mapping[str, tuple]) -> Coordinates:
        """Lay sites out one after the other.

        Args:
            supports: Values of each site's coordinates, `(n, K, *event)`.
            shapes: Batch and event shape of each site.

        Example:
            >>> found = Coordinates.of({"z": np.array([[0, 1, 2]])}, {"z": (4,)})
            >>> found.size, found.cardinality.tolist()
            (4, [3, 3, 3, 3])
        """
        places, start = {}, 0
        for name, support in supports.items():
            shape = tuple(shapes[name])
            places[name] = Place(start, shape[: len(shape) - (support.ndim - 2)], support)
            start += places[name].size
        return cls(places)

    @property
    def cardinality(self) -> Int[np.ndarray, " D"]:
        """Number of values of each coordinate."""
        return np.concatenate([place.cardinality for place in self.places.values()])

    @property
    def size(self) -> int:
        """Number D of coordinates."""
        return sum(place.size for place in self.places.values())

    @property
    def num_values(self) -> int:
        """Most values K of a coordinate."""
        return max(place.support.shape[1] for place in self.places.values())

    @property
    def key(self) -> tuple[Any, ...]:
        """What code that reads coordinates depends on."""
        places = self.places.items()
        return tuple((n, p.start, p.shape, p.support.tobytes(), p.support.shape) for n, p in places)

    @property
    def groups(self) -> list[Int[np.ndarray, " n"]]:
        """The coordinates of each site."""
        return [np.arange(p.start, p.start + p.size) for p in self.places.values()]

    def labels(self) -> tuple[list[str], Int[np.ndarray, " n"]]:
        """Return the names of the coordinates, or of 1,000 of them, and which they are.

        Example:
            >>> Coordinates.of({"z": np.array([[0, 1]])}, {"z": (2,)}).labels()[0]
            ['z[0]', 'z[1]']
        """
        columns = np.linspace(0, self.size - 1, min(self.size, _LOOKED_AT)).astype(int)
        names, places = [], list(self.places.items())
        for column in columns:
            name, place = next(p for p in reversed(places) if p[1].start <= column)
            index = np.unravel_index(column - place.start, place.shape) if place.shape else ()
            names.append(f"{name}[{', '.join(str(int(i)) for i in index)}]" if index else name)
        return names, columns

    def looked_at(
        self, x: np.ndarray, z: np.ndarray, shapes: Mapping[str, tuple[int, ...]]
    ) -> tuple[Float[np.ndarray, "chain draw n"], list[tuple[str, tuple[int, ...]]]]:
        """Return the positions by which mixing is judged, and their names; some of very many.

        Args:
            x: Coordinates, (chain, draw, D).
            z: Unconstrained continuous positions, (chain, draw, size).
            shapes: Unconstrained shape of each continuous site.
        """
        names, columns = self.labels()
        sites = [*shapes.items(), *((name, ()) for name in names)]
        return np.concatenate([z, x[..., columns].astype(np.float32)], axis=-1), sites

    def numbers(self, values: Mapping[str, Any]) -> Int[np.ndarray, "K D"]:
        """Return the coordinates of the sites' values.

        Args:
            values: Values `(K, *shape)` of each site.
        """
        parts = []
        for name, place in self.places.items():
            support = place.support
            value = np.asarray(values[name]).reshape(-1, place.size, 1, *support.shape[2:])
            same = (value == support[None]).reshape(len(value), place.size, support.shape[1], -1)
            parts.append(same.all(-1).argmax(-1))
        return np.concatenate(parts, axis=1)

    def values(self, x: Int[np.ndarray, "S D"]) -> dict[str, np.ndarray]:
        """Return the sites' values: the inverse of `numbers`.

        Args:
            x: Coordinates.

        Example:
            >>> Coordinates.of({"z": np.array([[2, 5]])}, {"z": (2,)}).values(np.array([[1, 0]]))
            {'z': array([[5, 2]])}
        """
        found = {}
        for name, place in self.places.items():
            part = x[:, place.start : place.start + place.size]
            row = np.arange(place.size) if len(place.support) > 1 else 0
            value = place.support[row, part]
            found[name] = value.reshape(len(x), *place.shape, *place.support.shape[2:])
        return found

    def integers(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return draws with the discrete sites as integers, where their values are whole numbers.

        Args:
            values: Draws of any sites.
        """
        return {name: self._whole(name, np.asarray(value)) for name, value in values.items()}

    def restored(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return draws with the discrete sites in the types that the program gives them.

        Args:
            values: Draws of any sites, the discrete ones as integers.
        """
        return {
            name: np.asarray(value).astype(self.places[name].support.dtype)
            if name in self.places
            else value
            for name, value in values.items()
        }

    def _whole(self, name: str, value: np.ndarray) -> np.ndarray:
        place = self.places.get(name)
        if place is None or place.support.dtype.kind not in "fb":
            return value
        return value.astype(np.int64) if (place.support % 1 == 0).all() else value


def told(true: np.ndarray, linear: np.ndarray) -> float:
    """Return how well first-order differences tell the true ones: their correlation.

    Args:
        true: What changes add to the log density; -inf where there is no such change.
        linear: The same to first order.

    Example:
        >>> told(np.array([0.0, 1.0, -np.inf]), np.array([0.0, 2.0, 0.0]))
        1.0
    """
    known = np.isfinite(true) & np.isfinite(linear)
    a, b = true[known], linear[known]
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return 1.0 if np.allclose(a, b, atol=1e-4) else 0.0
    return float(np.round(np.corrcoef(a, b)[0, 1], 6))


def values_between(low: Any, high: Any, shape: Sequence[int]) -> Int[np.ndarray, "n K"]:
    """Return the whole numbers between bounds that differ from coordinate to coordinate.

    Args:
        low: Lower bounds.
        high: Upper bounds.
        shape: Shape of the coordinates.

    Example:
        >>> values_between(0, np.array([1, 2]), (2,)).tolist()
        [[0, 1, 1], [0, 1, 2]]
    """
    low, high = (np.broadcast_to(np.asarray(b), shape).reshape(-1, 1) for b in (low, high))
    return np.minimum(low + np.arange(int((high - low).max()) + 1), high).astype(int)


def starting_draws(
    init: Any, shapes: Mapping[str, tuple[int, ...]], num_chains: int, seed: int
) -> dict[str, np.ndarray]:
    """Return values of all latent sites to start chains from, drawn together from a posterior.

    Args:
        init: The posterior.
        shapes: Shape of each latent site.
        num_chains: How many.
        seed: Seed of the choice.

    Raises:
        TypeError: It is no posterior.
        ValueError: It lacks a latent site of the model, or has it in another shape.
    """
    if not isinstance(init, Posterior):
        raise TypeError(
            f"init must be a Posterior with draws of the discrete sites too, not "
            f"{type(init).__name__}."
        )
    flat = init.resample().flat()
    for name, shape in shapes.items():
        if name not in flat or flat[name].shape[1:] != tuple(shape):
            found = f"of shape {flat[name].shape[1:]}" if name in flat else "missing"
            raise ValueError(
                f"init is of another model: the latent site '{name}' of shape {tuple(shape)} is "
                f"{found} in its draws."
            )
    size = len(flat[next(iter(shapes))])
    chosen = np.random.default_rng(seed).choice(size, num_chains, replace=size < num_chains)
    return {name: flat[name][chosen] for name in shapes}


def check_discrete(kernel: str, discrete: Sequence[str], latents: Sequence[str]) -> None:
    """Refuse a discrete kernel for a model without discrete latents.

    Raises:
        ValueError: naming the kernels that fit.
    """
    if not discrete:
        does = "sums over" if kernel == "exact" else "moves"
        raise ValueError(
            f"{_called(kernel)} {does} discrete latent sites and the model has none (its latent "
            f"sites: {quote(latents) or 'none'}). Continuous latents alone are drawn by "
            "kernel='nuts' or 'chees'."
        )


def check_continuous(
    continuous: Sequence[str], latents: Sequence[str], discrete: bool, warped: bool
) -> None:
    """Refuse a continuous kernel without continuous latents, and a discrete one on a guide's space.

    Args:
        continuous: Names of the continuous latent sites.
        latents: Names of all of them.
        discrete: Whether the kernel moves discrete sites.
        warped: Whether chains are to walk on the space of a guide.

    Raises:
        ValueError: naming the kernels that fit.
    """
    if discrete and warped:
        raise ValueError(
            "neutra= warps the space of continuous kernels, with discrete sites summed out. Take "
            "kernel='chees' with it, or drop it."
        )
    if not discrete and not continuous:
        raise ValueError(
            f"mcmc needs a continuous latent site for this kernel; the model's latent sites are "
            f"{quote(latents) or 'none'}. "
            + (
                "Discrete latents alone are drawn by kernel='gibbs' or 'gibbs_with_gradients', or "
                "by importance."
                if latents
                else PASS_NONE
            )
        )


def check_supports(kernel: str, endless: Sequence[str], moving: Sequence[str]) -> None:
    """Refuse discrete latents whose values cannot be listed.

    Args:
        kernel: Name of the kernel that needs them, or the option that asked for it.
        endless: Sites without a finite support.
        moving: Sites whose support depends on other latents.

    Raises:
        ValueError: naming them.
    """
    asked = _called(kernel)
    if endless:
        raise ValueError(
            f"{asked} lists the values of every discrete latent, and {quote(endless)} "
            "has no finite support. Cut it off (a Categorical over 0 to a bound that matters), "
            "marginalise it by hand, or use importance or svi."
        )
    if moving:
        raise ValueError(
            f"{asked}: the support of {quote(moving)} depends on other latents. Give it "
            "one support and let its probabilities be zero outside."
        )


def _called(kernel: str) -> str:
    """Return how a user calls what lists values: `exact`, an option, or a kernel."""
    return kernel if kernel == "exact" or "=" in kernel else f"kernel='{kernel}'"


def check_scan(scan: object) -> None:
    """Refuse an order of a sweep that is none.

    Raises:
        ValueError: naming it.
    """
    if scan not in ("systematic", "random"):
        raise ValueError(f"scan must be 'systematic' or 'random', not {scan!r}.")


def refuse_real_numbers(error: Exception) -> None:
    """Say that a program's density takes no real numbers for its discrete sites.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        "differences='gradient' asks for the gradient of the log density in the discrete sites, "
        f"and the model takes no real numbers for them ({type(error).__name__}: "
        f"{str(error)[:80]}). Choose differences='exact', or 'auto'."
    ) from error


def check_differences(differences: object) -> None:
    """Refuse a way to tell what a change would add that is none.

    Raises:
        ValueError: naming it.
    """
    if differences not in ("auto", "gradient", "exact"):
        raise ValueError(f"differences must be 'auto', 'gradient' or 'exact', not {differences!r}.")


def check_cycle(step_sizes: Any) -> tuple[float, ...]:
    """Return the step sizes of a cycle, all of them above zero.

    Raises:
        ValueError: it is empty, or holds what is no positive number.

    Example:
        >>> check_cycle([1, 0.5])
        (1.0, 0.5)
    """
    found = tuple(float(size) for size in np.atleast_1d(np.asarray(step_sizes, float)))
    if not found or not all(0.0 < size < np.inf for size in found):
        raise ValueError(f"step_sizes must be one or more positive numbers, got {found}.")
    return found
