"""Data as the verbs take them: positional arrays whose leading axis is the data axis."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from pyro.infer.autoguide import AutoGuide
from pyro.infer.autoguide.effect import GuideMessenger
from pyro.poutine.messenger import _context_wrap
from pyro.poutine.messenger import unwrap as unwrap_handlers
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from deepgen_ppl import data_checks


def to_tensor(value: Any, device: torch.device | None = None) -> Any:
    """Return an array as a tensor; `None`, Python scalars and other objects as they are.

    NumPy's `float64` becomes torch's default dtype, as a Python list of floats would; tensors keep
    their dtype.
    """
    if isinstance(value, Tensor):
        return value if device is None or value.device == device else value.to(device)
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
        array = np.asarray(value)
        array = array if array.flags.writeable else array.copy()  # torch shares no frozen memory
        if array.dtype == np.float64:
            return torch.as_tensor(array, dtype=torch.get_default_dtype(), device=device)
        if array.dtype.kind in "biuf":
            return torch.tensor(array, device=device)
        raise TypeError(
            f"Data of dtype {array.dtype} cannot be a tensor. Encode it as numbers first "
            "(categories as integers)."
        )
    return value


def device_of(modules: Sequence[nn.Module]) -> torch.device | None:
    """Return the device of the first parameter of some modules; None without one."""
    return next((p.device for module in modules for p in module.parameters()), None)


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


def unwrap(fn: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Peel `functools.partial` off a program; its arrays become tensors.

    Returns:
        The function, its bound positional and keyword constants.
    """
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    while type(fn) is functools.partial and fn.func is not _context_wrap:
        args, kwargs = (*fn.args, *args), {**fn.keywords, **kwargs}
        fn = fn.func
    if not callable(fn):
        raise TypeError(f"A model or guide is a callable Pyro program, not {type(fn).__name__}.")
    if isinstance(unwrap_handlers(fn), GuideMessenger):
        raise TypeError(
            f"{type(unwrap_handlers(fn)).__name__} runs the model inside the guide. Use "
            "AutoNormal, AutoDelta or another guide of pyro.infer.autoguide that is a program of "
            "its own."
        )
    return (
        fn,
        to_tensors(args),
        {name: to_tensor(value) for name, value in kwargs.items()},
    )


def argument_names(fn: Any, num_bound: int, count: int) -> tuple[str, ...]:
    """Return the names of the data arguments, as the program's own signature has them."""
    names = [f"data[{i}]" for i in range(count)]
    target = unwrap_handlers(fn)
    target = target.model if isinstance(target, AutoGuide) else target
    target = target.forward if isinstance(target, nn.Module) else unwrap_handlers(target)
    try:
        parameters = list(inspect.signature(target).parameters.values())[num_bound:]
    except (TypeError, ValueError):
        return tuple(names)
    for i, parameter in enumerate(parameters[:count]):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names[i] = parameter.name
    return tuple(names)


def check(names: Sequence[str], data: Sequence[Any], batch_size: int | None = None) -> int | None:
    """Return the number of rows of the data (None where arrays disagree) after checking them.

    Raises:
        ValueError: empty arrays, NaN, or what `data_checks.check_rows` refuses.
    """
    data_checks.check_arrays(dict(zip(names, data, strict=True)))
    leaves = [(n, v) for n, v in zip(names, data, strict=True) if isinstance(v, Tensor)]
    total = data_checks.check_rows({name: tuple(leaf.shape) for name, leaf in leaves}, batch_size)
    for name, leaf in leaves:
        if leaf.is_floating_point() and bool(torch.isnan(leaf.sum())):
            data_checks.check_nan(name, leaf.detach().cpu().double().numpy())
    return total


def check_own(fn: Any, data: Sequence[Any]) -> None:
    """Let a ready program check its data by itself, where they are more than shapes."""
    owner = getattr(unwrap_handlers(fn), "__self__", None)
    if isinstance(owner, data_checks.ChecksData):
        arrays = (v.detach().cpu().numpy() if isinstance(v, Tensor) else v for v in data)
        owner.check_data(*arrays)


def check_support(
    name: str, value: Tensor, support: Any, mask: Tensor | bool | None = None, event_dim: int = 0
) -> None:
    """Refuse data outside a support that no latent moves, unless the user has validation off.

    Args:
        name: The observed site.
        value: Its data.
        support: Its support.
        mask: Which of its elements count; all when None.
        event_dim: Number of event dimensions.

    Raises:
        ValueError: Naming the rows.
    """
    fixed = support
    while hasattr(fixed, "base_constraint"):
        fixed = fixed.base_constraint
    if not Distribution._validate_args or not _is_fixed(fixed):
        return
    inside = fixed.check(value)
    if mask is not None and not inside.all():
        mask = torch.as_tensor(mask, device=inside.device)
        inside = inside | ~mask.reshape(mask.shape + (1,) * event_dim)
    if not inside.all():
        found = value.expand(inside.shape)[~inside]
        rows = (~inside).nonzero()[:, :1].unique().tolist()
        data_checks.refuse_outside(name, fixed, rows, found[:3].tolist())


def _is_fixed(support: Any) -> bool:
    """Tell whether no latent can move a support: symbols are as many as there are logits."""
    if isinstance(support, constraints.integer_interval):
        return isinstance(support.lower_bound, int) and isinstance(support.upper_bound, int)
    return any(support is known for known in _FIXED)


_FIXED = (
    constraints.boolean, constraints.nonnegative_integer, constraints.positive_integer,
    constraints.positive, constraints.nonnegative, constraints.unit_interval,
)  # fmt: skip
