"""Discrete latents as one vector of numbers of values: where each site stands, what it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from deepgen_ppl.checks import quote


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
    def groups(self) -> list[Int[np.ndarray, " n"]]:
        """The coordinates of each site."""
        return [np.arange(p.start, p.start + p.size) for p in self.places.values()]

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


def check_discrete(kernel: str, discrete: Sequence[str], latents: Sequence[str]) -> None:
    """Refuse a discrete kernel for a model without discrete latents.

    Raises:
        ValueError: naming the kernels that fit.
    """
    if not discrete:
        raise ValueError(
            f"kernel='{kernel}' moves discrete latent sites and the model has none (its latent "
            f"sites: {quote(latents) or 'none'}). Continuous latents alone are drawn by "
            "kernel='nuts' or 'chees'."
        )


def check_supports(kernel: str, endless: Sequence[str], moving: Sequence[str]) -> None:
    """Refuse discrete latents whose values cannot be listed.

    Args:
        kernel: Name of the kernel that needs them.
        endless: Sites without a finite support.
        moving: Sites whose support depends on other latents.

    Raises:
        ValueError: naming them.
    """
    if endless:
        raise ValueError(
            f"kernel='{kernel}' lists the values of every discrete latent, and {quote(endless)} "
            "has no finite support. Cut it off (a Categorical over 0 to a bound that matters), "
            "marginalise it by hand, or use importance or svi."
        )
    if moving:
        raise ValueError(
            f"kernel='{kernel}': the support of {quote(moving)} depends on other latents. Give it "
            "one support and let its probabilities be zero outside."
        )


def check_scan(scan: object) -> None:
    """Refuse an order of a sweep that is none.

    Raises:
        ValueError: naming it.
    """
    if scan not in ("systematic", "random"):
        raise ValueError(f"scan must be 'systematic' or 'random', not {scan!r}.")


def check_differences(differences: object) -> None:
    """Refuse a way to tell what a change would add that is none.

    Raises:
        ValueError: naming it.
    """
    if differences not in ("auto", "gradient", "exact"):
        raise ValueError(f"differences must be 'auto', 'gradient' or 'exact', not {differences!r}.")
