"""The labels: dimension names and coordinates for the arrays of a result, as xarray datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

_SAMPLE = ("chain", "draw")


def host(value: Any) -> np.ndarray:
    """A value as a NumPy array of a dtype that netCDF and ArviZ know (half precision widened)."""
    array = np.asarray(value)
    if array.dtype == np.float16 or (array.dtype.kind == "V" and "float" in array.dtype.name):
        return array.astype(np.float32)
    return array


def library_attrs() -> dict[str, str]:
    """The attributes by which a dataset says what made it."""
    from deepgen_ppl import __version__

    return {
        "created_at": datetime.now(timezone.utc).isoformat(),
        "inference_library": "deepgen_ppl",
        "inference_library_version": __version__,
    }


class Namer:
    """Gives every dimension of every variable of a result its name, the same in all groups.

    Args:
        variables: Names of all variables, which no dimension may bear.
        batch_dims: Variables to the names of their leading dimensions (plates); None for unnamed.
        coords: The user's coordinate values by dimension.
        dims: The user's dimension names by variable: all of them, or those behind the plates.
    """

    def __init__(
        self,
        variables: set[str],
        batch_dims: Mapping[str, tuple[str | None, ...]],
        coords: Mapping[str, Sequence[Any] | np.ndarray],
        dims: Mapping[str, Sequence[str]],
    ) -> None:
        self._variables = {clean(name) for name in variables}
        self._batch_dims = batch_dims
        self._coords = dict(coords)
        self._dims = dict(dims)
        self._used: set[str] = set()

    def dataset(self, arrays: Mapping[str, np.ndarray], lead: int) -> xr.Dataset:
        """One group: `lead` is 2 for draws (chain, draw, ...) and 0 for data."""
        import xarray as xr

        sizes: dict[str, int] = {}
        variables = {}
        for name, array in arrays.items():
            array = host(array)
            own = self._own_dims(name, array.shape[min(lead, array.ndim) :], sizes)
            dims = (*_SAMPLE[:lead], *own)
            sizes |= dict(zip(dims, array.shape, strict=True))
            variables[clean(name)] = (dims, array)
        coords = {dim: self._coord(dim, size) for dim, size in sizes.items()}
        return xr.Dataset(variables, coords=coords)

    def check_all_used(self) -> None:
        """Refuse coords and dims that name nothing in the result."""
        unknown = sorted(str(name) for name in {*self._coords, *self._dims} - self._used)
        if unknown:
            raise ValueError(f"coords or dims name {unknown}, which no variable of the result has.")

    def _own_dims(self, name: str, shape: tuple[int, ...], sizes: dict[str, int]) -> list[str]:
        names = list(self._batch_dims.get(name, ()))[: len(shape)]
        names += [None] * (len(shape) - len(names))
        if name in self._dims:
            self._used.add(name)
            chosen = list(self._dims[name])
            if len(chosen) > len(shape):
                raise ValueError(
                    f"dims gives '{name}' {len(chosen)} names {chosen}, but its shape is {shape}."
                )
            names[len(shape) - len(chosen) :] = chosen
        made: list[str] = []
        for axis, (dim, size) in enumerate(zip(names, shape, strict=True)):
            label = f"{clean(name)}_dim_{axis}" if dim is None else self._free(dim)
            if label in made or sizes.get(label, size) != size:
                label = f"{clean(name)}_{label}_{axis}"
            made.append(label)
        return made

    def _free(self, dim: str) -> str:
        label = clean(dim)
        while label in self._variables or label in _SAMPLE:
            label += "_dim"
        return label

    def _coord(self, dim: str, size: int) -> np.ndarray:
        for name in (dim, dim.removesuffix("_dim")):
            if name in self._coords and dim not in _SAMPLE:
                values = np.asarray(self._coords[name])
                self._used.add(name)
                if len(values) != size:
                    raise ValueError(
                        f"coords gives dimension '{name}' {len(values)} values, its size is {size}."
                    )
                return values
        return np.arange(size)


def clean(name: str) -> str:
    """A name that netCDF and DataTree accept: scopes ``a/b`` become ``a.b``."""
    return name.replace("/", ".")
