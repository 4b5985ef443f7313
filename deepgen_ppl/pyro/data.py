"""Data as the verbs take them: positional arrays whose leading axis is the data axis, made tensors
and checked.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def to_tensor(value: Any, device: torch.device | None = None) -> Any:
    """Return an array as a tensor; `None`, Python scalars and other objects as they are.

    NumPy's `float64` becomes torch's default dtype, as a Python list of floats would; tensors keep
    their dtype.
    """
    if isinstance(value, Tensor):
        return value if device is None or value.device == device else value.to(device)
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype == np.float64:
            return torch.as_tensor(array, dtype=torch.get_default_dtype(), device=device)
        if array.dtype.kind in "biuf":
            return torch.tensor(array, device=device)
        raise TypeError(
            f"Data of dtype {array.dtype} cannot be a tensor. Encode it as numbers first "
            "(categories as integers)."
        )
    return value


def to_tensors(data: Sequence[Any], device: torch.device | None = None) -> tuple[Any, ...]:
    """Return the data with its arrays made tensors on one device."""
    return tuple(to_tensor(value, device) for value in data)


def has_rows(value: Any) -> bool:
    """Whether a datum argument has a leading axis."""
    return isinstance(value, Tensor) and value.dim() > 0


def num_rows(data: Sequence[Any]) -> int | None:
    """Return the common leading axis of the data; None where there is none or they differ."""
    sizes = {len(value) for value in data if has_rows(value)}
    return sizes.pop() if len(sizes) == 1 else None


def take(data: Sequence[Any], rows: Tensor | slice | None) -> tuple[Any, ...]:
    """Return the given rows of every array."""
    if rows is None:
        return tuple(data)
    if isinstance(rows, slice):
        return tuple(value[rows] if has_rows(value) else value for value in data)
    return tuple(
        value.index_select(0, rows.to(value.device)) if has_rows(value) else value for value in data
    )


def check(data: Sequence[Any], batch_size: int | None = None) -> None:
    """Raise `ValueError` for data no program can be fitted to, naming the argument and the cure."""
    for index, value in enumerate(data):
        if not isinstance(value, Tensor):
            continue
        if value.dim() > 0 and value.numel() == 0:
            raise ValueError(f"data[{index}] is empty: its shape is {tuple(value.shape)}.")
        if value.is_floating_point() and bool(torch.isnan(value).any()):
            bad = torch.isnan(value.reshape(len(value), -1) if value.dim() else value.reshape(1, 1))
            rows = torch.nonzero(bad.any(1)).flatten()
            raise ValueError(
                f"data[{index}] contains NaN in {len(rows)} of {len(bad)} rows (first: row "
                f"{int(rows[0])}). "
                "Impute or drop them, or pass a mask to the program and hide the missing cells "
                "with it."
            )
    if batch_size is None:
        return
    sizes = {f"data[{index}]": len(value) for index, value in enumerate(data) if has_rows(value)}
    if not sizes:
        raise ValueError(
            "batch_size needs data: no positional array has a leading axis to draw rows from."
        )
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ValueError(
            f"batch_size needs data of equal leading axes, but {listed} rows. Bind what is no data "
            "with "
            "functools.partial or model_kwargs=."
        )
    size = next(iter(sizes.values()))
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer, not {batch_size!r}.")
    if batch_size > size:
        raise ValueError(f"batch_size={batch_size} is larger than the data, which has {size} rows.")
