"""The DataTree: the groups, dimension names and coordinates by which ArviZ reads a result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from deepgen_ppl.posterior import Posterior

EVALUATED = ("posterior_predictive", "log_likelihood", "log_prior")
ON_REQUEST = ("prior", "prior_predictive")
DATA = ("observed_data", "constant_data")
GROUPS = ("proposal", "sample_stats", "adaptation", *EVALUATED, *ON_REQUEST, *DATA)

_SAMPLE = ("chain", "draw")


def to_datatree(
    posterior: Posterior,
    *,
    groups: Iterable[str] | None = None,
    coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    num_draws: int | None = None,
) -> xr.DataTree:
    """Lay a result out in groups: the work of `Posterior.to_datatree`, which documents it.

    Example:
        >>> from deepgen_ppl import Posterior
        >>> tree = to_datatree(Posterior({"z": np.zeros((4, 25))}), groups=())
        >>> list(tree.children)
        ['posterior']
    """
    wanted = _wanted(posterior, groups)
    even = posterior.resample(num_draws)
    arrays: dict[str, tuple[Mapping[str, np.ndarray], int]] = {"posterior": (even.draws, 2)}
    for group in wanted:
        if group == "proposal" and posterior.log_weights is not None:
            weighted = {**posterior.draws, **posterior.stats, "log_weights": posterior.log_weights}
            arrays[group] = (weighted, 2)
        elif group == "sample_stats" and even.stats:
            arrays[group] = (even.stats, 2)
        elif group in even.available:
            arrays[group] = (even.evaluate(group), 2)
        elif group in DATA and getattr(posterior, group):
            arrays[group] = (getattr(posterior, group), 0)
    beside: dict[str, Mapping[str, np.ndarray]] = {}
    row_table = _row_table(posterior) if "proposal" in wanted else {}
    if row_table:
        beside["proposal"] = row_table
    if "adaptation" in wanted and posterior.adaptation:
        beside["adaptation"] = posterior.adaptation
    for group in beside:
        arrays.setdefault(group, ({}, 2))
    return assemble(
        arrays,
        _batch_dims(posterior),
        attrs=_result_attrs(posterior),
        coords=coords,
        dims=dims,
        beside=beside,
    )


def assemble(
    groups: Mapping[str, tuple[Mapping[str, np.ndarray], int]],
    batch_dims: Mapping[str, tuple[str | None, ...]],
    *,
    attrs: Mapping[str, Any] | None = None,
    coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    beside: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> xr.DataTree:
    """Put named arrays into the groups of one DataTree, every dimension under one name.

    Args:
        groups: Group names to (arrays, lead); lead is 2 where arrays begin with (chain, draw), 0
            where they do not.
        batch_dims: Variables to the names of their leading dimensions (plates); None for unnamed.
        attrs: Attributes of the root.
        coords: Dimension names to coordinate values.
        dims: Variables to names of their dimensions: all of them, or those of the event.
        beside: Further arrays without (chain, draw), by group.

    Returns:
        A DataTree that the functions of arviz_stats and arviz_plots take as it is.

    Raises:
        ValueError: coords or dims do not fit the shapes, or name nothing.

    Example:
        >>> draws = {"y": np.zeros((1, 10, 3))}
        >>> assemble({"prior": (draws, 2)}, {"y": ("data",)}).prior["y"].dims
        ('chain', 'draw', 'data')
    """
    import xarray as xr

    beside = beside or {}
    names = {name for values, _ in groups.values() for name in values}
    names |= {name for values in beside.values() for name in values}
    namer = Namer(names, batch_dims, coords or {}, dims or {})
    sets = {group: namer.dataset(values, lead) for group, (values, lead) in groups.items()}
    for group, values in beside.items():
        sets[group].update(namer.dataset(values, 0))
    namer.check_all_used()
    for values in sets.values():
        values.attrs.update(_library_attrs())
    root = xr.Dataset(attrs={**_library_attrs(), **(attrs or {})})
    return xr.DataTree.from_dict({"/": root, **sets})


def host(value: Any) -> np.ndarray:
    """A value as a NumPy array of a dtype that netCDF and ArviZ know; half precision is widened.

    Example:
        >>> host(np.float16(0.5)).dtype
        dtype('float32')
    """
    array = np.asarray(value)
    if array.dtype == np.float16 or (array.dtype.kind == "V" and "float" in array.dtype.name):
        return array.astype(np.float32)
    return array


class Namer:
    """Gives every dimension of every variable its name, the same one in all groups.

    Args:
        variables: Names of all variables, which no dimension may bear.
        batch_dims: Variables to the names of their leading dimensions (plates); None for unnamed.
        coords: The user's coordinate values by dimension.
        dims: The user's dimension names by variable: all of them, or the last ones.

    Example:
        >>> namer = Namer({"theta"}, {"theta": ("school",)}, {"school": ["a", "b"]}, {})
        >>> namer.dataset({"theta": np.zeros((1, 5, 2))}, lead=2)["school"].values.tolist()
        ['a', 'b']
    """

    def __init__(
        self,
        variables: set[str],
        batch_dims: Mapping[str, tuple[str | None, ...]],
        coords: Mapping[str, Sequence[Any] | np.ndarray],
        dims: Mapping[str, Sequence[str]],
    ) -> None:
        self._variables = {_clean(name) for name in variables}
        self._batch_dims = batch_dims
        self._coords = dict(coords)
        self._dims = dict(dims)
        self._used: set[str] = set()

    def dataset(self, arrays: Mapping[str, np.ndarray], lead: int) -> xr.Dataset:
        """One group; `lead` is 2 where arrays begin with (chain, draw) and 0 where they do not."""
        import xarray as xr

        sizes: dict[str, int] = {}
        variables = {}
        for name, value in arrays.items():
            array = host(value)
            dims = (*_SAMPLE[:lead], *self._own_dims(name, array.shape[lead:], sizes))
            sizes |= dict(zip(dims, array.shape, strict=True))
            variables[_clean(name)] = (dims, array)
        coords = {dim: self._coord(dim, size) for dim, size in sizes.items()}
        return xr.Dataset(variables, coords=coords)

    def check_all_used(self) -> None:
        """Refuse coords and dims that name nothing in the result."""
        unknown = sorted({*self._coords, *self._dims} - self._used)
        if unknown:
            raise ValueError(
                f"coords or dims name {unknown}, which the result does not have. Its variables are "
                f"{sorted(self._variables)}."
            )

    def _own_dims(self, name: str, shape: tuple[int, ...], sizes: dict[str, int]) -> list[str]:
        names: list[str | None] = list(self._batch_dims.get(name, ()))[: len(shape)]
        names += [None] * (len(shape) - len(names))
        if name in self._dims:
            self._used.add(name)
            chosen = list(self._dims[name])
            if len(chosen) > len(shape):
                raise ValueError(
                    f"dims gives '{name}' {len(chosen)} names, {chosen}, but there are "
                    f"{len(shape)} dimensions, of shape {shape}."
                )
            names[len(shape) - len(chosen) :] = chosen
        made: list[str] = []
        for axis, (dim, size) in enumerate(zip(names, shape, strict=True)):
            label = f"{_clean(name)}_dim_{axis}" if dim is None else self._free(dim)
            if label in made or sizes.get(label, size) != size:
                label = f"{_clean(name)}_{label}_{axis}"
            made.append(label)
        return made

    def _free(self, dim: str) -> str:
        label = _clean(dim)
        while label in self._variables or label in _SAMPLE:
            label += "_dim"
        return label

    def _coord(self, dim: str, size: int) -> np.ndarray:
        if dim in _SAMPLE:
            return np.arange(size)
        for name in (dim, dim.removesuffix("_dim")):
            if name in self._coords:
                self._used.add(name)
                values = np.asarray(self._coords[name])
                if len(values) != size:
                    raise ValueError(
                        f"coords gives dimension '{name}' {len(values)} values, but its size is "
                        f"{size}."
                    )
                return values
        return np.arange(size)


def _wanted(posterior: Posterior, groups: Iterable[str] | None) -> tuple[str, ...]:
    if groups is None:
        return tuple(group for group in GROUPS if group not in ON_REQUEST)
    chosen = tuple(groups)
    unknown = [group for group in chosen if group not in (*GROUPS, "posterior")]
    if unknown:
        raise ValueError(f"There are no groups {unknown}; choose among {list(GROUPS)}.")
    evaluated = (*EVALUATED, *ON_REQUEST)
    missing = [g for g in evaluated if g in chosen and g not in posterior.available]
    if missing:
        raise ValueError(
            f"This result cannot compute {missing}; it has {sorted(posterior.available)}."
        )
    return tuple(group for group in GROUPS if group in chosen)


def _row_table(posterior: Posterior) -> dict[str, np.ndarray]:
    found = posterior.evidence
    if found is None or found.per_row is None:
        return {}
    return {
        "log_evidence": found.per_row,
        "log_evidence_standard_error": np.asarray(found.per_row_standard_error),
        "pareto_k": np.asarray(found.pareto_k),
        "ess": np.asarray(found.ess),
    }


def _batch_dims(posterior: Posterior) -> dict[str, tuple[str | None, ...]]:
    rows = posterior.row_dim or (posterior.evidence.rows if posterior.evidence else None)
    if rows is None:
        return dict(posterior.dims)
    tables: dict[str, tuple[str | None, ...]] = dict.fromkeys(
        ("log_weights", rows, *_row_table(posterior)), (rows,)
    )
    return tables | posterior.dims


def _library_attrs() -> dict[str, Any]:
    from deepgen_ppl import __version__

    return {
        "created_at": datetime.now(UTC).isoformat(),
        "inference_library": "deepgen_ppl",
        "inference_library_version": __version__,
    }


def _result_attrs(posterior: Posterior) -> dict[str, Any]:
    attrs: dict[str, Any] = {"inference_method": posterior.method}
    attrs["independent_draws"] = int(bool(posterior.independent))
    if posterior.evidence is not None:
        attrs |= posterior.evidence.attrs()
    if posterior.superchains is not None:
        attrs["superchains"] = posterior.superchains
    attrs |= posterior.diagnose().attrs()
    return attrs | {name: _plain(value) for name, value in posterior.attrs.items()}


def _plain(value: Any) -> Any:
    """An attribute as netCDF takes it: a string, a number, or JSON."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, str | int | float | np.number | np.ndarray):
        return value
    return json.dumps(value, default=str)


def _clean(name: str) -> str:
    """A name that netCDF and DataTree accept: scopes ``a/b`` become ``a.b``."""
    return name.replace("/", ".")
