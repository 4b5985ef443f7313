"""Checks of the data a user hands to a verb, in the same words on both wings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

_SHOWN = 8
PASS_NONE = "Where sites are to be drawn, pass None for their data."


@runtime_checkable
class ChecksData(Protocol):
    """A ready program that knows which data it takes: its model is a method of it."""

    def check_data(self, *data: Any) -> None:
        """Refuse data that do not fit, given as arrays, before anything is compiled."""
        ...


def check_rows(shapes: Mapping[str, Sequence[int]], batch_size: int | None) -> int | None:
    """Return the number of rows the data arrays agree on, or None where they do not.

    Args:
        shapes: shape of each data array by argument name; scalars have shape ().
        batch_size: rows per minibatch, None for the full data.

    Returns:
        The common leading axis, None without arrays or where the leading axes differ.

    Raises:
        ValueError: empty data; with `batch_size` also unequal leading axes, no array at all, or a
            batch larger than the data.

    Example:
        >>> check_rows({"x": (10, 2), "y": (10,)}, batch_size=5)
        10
    """
    rows = {name: int(shape[0]) for name, shape in shapes.items() if len(shape)}
    for name, shape in shapes.items():
        if len(shape) and int(np.prod(shape)) == 0:
            raise ValueError(
                f"data argument '{name}' is empty: its shape is {tuple(shape)}. "
                "Pass at least one row."
            )
    if batch_size is None:
        return next(iter(rows.values())) if len(set(rows.values())) == 1 else None
    if not rows:
        raise ValueError(f"batch_size={batch_size} needs data arrays with a leading axis of rows.")
    if len(set(rows.values())) > 1:
        sizes = ", ".join(f"{name}: {size}" for name, size in rows.items())
        raise ValueError(
            f"batch_size needs data arrays of equal leading axes, got {sizes} rows. Cut them to "
            "the same rows, or bind arrays that are no data with functools.partial."
        )
    num_rows = next(iter(rows.values()))
    if isinstance(batch_size, bool) or batch_size != int(batch_size) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive whole number, got {batch_size}.")
    if batch_size > num_rows:
        raise ValueError(
            f"batch_size={batch_size} is larger than the data: {num_rows} rows. Choose at most "
            f"{num_rows}, or None for the full data."
        )
    return num_rows


def check_arrays(data: Mapping[str, object]) -> None:
    """Refuse data that look like arrays and are none.

    Args:
        data: the data arguments by name.

    Raises:
        TypeError: a list of numbers, or an array whose entries are no numbers.
    """
    for name, value in data.items():
        if isinstance(value, list | tuple) and any(isinstance(x, float | int) for x in value):
            raise TypeError(
                f"data argument '{name}' is a {type(value).__name__} of numbers. Pass an array, "
                f"for example np.asarray({name})."
            )
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biufc":
            raise TypeError(
                f"data argument '{name}' has dtype {value.dtype}, which holds no numbers. Encode "
                "it as numbers first (categories as integers)."
            )


def check_nan(name: str, array: np.ndarray) -> None:
    """Refuse a data array that holds NaN, naming the argument and the rows.

    Raises:
        ValueError: some entry is NaN.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "fc" or not array.ndim:
        return
    if not np.isnan(np.sum(array)):  # one pass without a mask: NaN is contagious
        return
    bad = np.flatnonzero(np.isnan(array).reshape(len(array), -1).any(axis=1))
    if bad.size:
        shown = ", ".join(str(row) for row in bad[:_SHOWN]) + (", ..." if bad.size > _SHOWN else "")
        raise ValueError(
            f"data argument '{name}' holds NaN in {bad.size} of {len(array)} rows: {shown}. Drop "
            "these rows, or fill the cells and mask the sites that read them."
        )


def refuse_integers(site: str, dtype: object) -> None:
    """Refuse integer data at a site of real support.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        f"site '{site}' has real support but its data are integers ({dtype}). Pass floats, for "
        "example x.astype('float32')."
    )


def check_shape(site: str, data: Sequence[int], shape: Sequence[int]) -> None:
    """Refuse data that only fit a site when both are broadcast against each other.

    Raises:
        ValueError: a column meets a row, as `(N, 1)` data at a site of shape `(N,)`.
    """
    data, shape = tuple(data), tuple(shape)
    try:
        both = np.broadcast_shapes(data, shape)
    except ValueError:  # the site's own log density says so
        return
    if both not in (data, shape):
        raise ValueError(
            f"site '{site}' has shape {shape} but its data have shape {data}: together they would "
            f"broadcast to {both}. Pass data of the site's shape, for example x.reshape{shape}."
        )


def refuse_outside(
    site: str, support: object, rows: Sequence[int], values: Sequence[object]
) -> None:
    """Refuse observed data outside their site's support, naming rows and values.

    Args:
        site: name of the observed site.
        support: its support.
        rows: positions of the offending data on the leading axis.
        values: the first offending values.

    Raises:
        ValueError: always.
    """
    shown = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
    found = ", ".join(f"{value:g}" for value in values[:3])
    raise ValueError(
        f"the data of site '{site}' are outside its support ({support}) in rows {shown}: they hold "
        f"{found}. Correct the data, or choose a distribution of their support. (Switching the "
        "language's validation off accepts them as they are.)"
    )


def check_draws(
    draws: Mapping[str, np.ndarray],
    stats: Mapping[str, np.ndarray],
    log_weights: np.ndarray | None,
    superchains: np.ndarray | None,
    row_axis: Mapping[str, int],
) -> None:
    """Refuse draws whose shapes do not fit together.

    Args:
        draws: values of each site, `(chain, draw, *shape)`.
        stats: statistics, `(chain, draw)`.
        log_weights: log weights of the draws.
        superchains: group of each chain.
        row_axis: axis of the rows in the shape of sites that have them.

    Raises:
        ValueError: naming what does not fit.

    Example:
        >>> check_draws({"z": np.zeros((4, 10))}, {}, None, None, {})
    """
    arrays = {f"Site '{name}'": value for name, value in draws.items()}
    arrays |= {f"Statistic '{name}'": value for name, value in stats.items()}
    if log_weights is not None:
        arrays["log_weights"] = log_weights
    first = next(iter(arrays), "")
    for name, value in arrays.items():
        if value.ndim < 2 or value.shape[:2] != arrays[first].shape[:2]:
            raise ValueError(
                f"{name} has shape {value.shape}; it must begin with (chain, draw), as "
                f"{first} of shape {arrays[first].shape} does."
            )
    chains = arrays[first].shape[0] if arrays else 0
    if superchains is not None and superchains.shape != (chains,):
        raise ValueError(
            f"superchains has shape {superchains.shape}; it must have one number for each "
            f"of the {chains} chains."
        )
    for site, axis in row_axis.items():
        if site not in draws or not 0 <= axis < draws[site].ndim - 2:
            raise ValueError(f"row_axis names axis {axis} of site '{site}', which has none.")
        size = draws[site].shape[2 + axis]
        if log_weights is not None and log_weights.shape[2:] not in ((), (size,)):
            raise ValueError(
                f"Site '{site}' has {size} rows on axis {axis}, but log_weights have shape "
                f"{log_weights.shape}."
            )


def learned_values(params: Any) -> Mapping[str, Any]:
    """Return the learned values by name of a `Fit`, or of a dict.

    Raises:
        TypeError: it is neither.

    Example:
        >>> learned_values({"loc": 0.5})
        {'loc': 0.5}
        >>> learned_values(3)
        Traceback (most recent call last):
        ...
        TypeError: params must be a dict of arrays or a Fit, not int.
    """
    values = params if isinstance(params, Mapping) else getattr(params, "params", None)
    if not isinstance(values, Mapping):
        raise TypeError(f"params must be a dict of arrays or a Fit, not {type(params).__name__}.")
    return values
