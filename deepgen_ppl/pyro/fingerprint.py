"""What a program depends on beside its run: code, closures, globals, objects, and all tensors."""

from __future__ import annotations

import random
import types
import weakref
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from deepgen_ppl.kept import Same, Walk, is_own
from deepgen_ppl.readings import digests

_MOST_THINGS = 100_000
"""Objects that are looked at; what depends on more is not kept."""

_CONSTANT = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType,
    types.MethodWrapperType, types.GetSetDescriptorType, types.MemberDescriptorType,
    types.ClassMethodDescriptorType, types.EllipsisType, types.NotImplementedType, types.CodeType,
    torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype, np.ufunc, range, slice,
)  # fmt: skip
"""Values that never change."""


class Depends(NamedTuple):
    """What some values depend on.

    Attributes:
        structure: All but the content of tensors and arrays.
        contents: Digest of the content of each of these.
    """

    structure: Hashable
    contents: tuple[bytes, ...]


class _Opaque(Exception):
    """Something whose state cannot be seen."""


def fingerprint(*values: Any) -> Depends | None:
    """Return what some values depend on; None where it cannot be seen.

    Numbers, strings and containers count by content; functions and classes by their code, their
    closure, their defaults and the globals they name, and so on for what they call, but for
    installed code; all other objects by their attributes; tensors and arrays, weights of modules
    among them, by shape and content. State that no attribute shows, as that of iterators and
    random generators, cannot be seen.

    Args:
        *values: functions, modules, data.

    Cost:
        About 0.3 ms for a model, and 1 ms for each MB of tensors.

    Example:
        >>> def scaled(scale):
        ...     return lambda x: scale * x
        >>> one, other = fingerprint(scaled(torch.ones(3))), fingerprint(scaled(torch.zeros(3)))
        >>> one.structure == other.structure, one.contents == other.contents
        (True, False)
        >>> fingerprint(scaled(2)).structure == fingerprint(scaled(3)).structure
        False
        >>> fingerprint(scaled(iter([1, 2])))  # nobody knows what comes next
    """
    walk = _Walk()
    try:
        structure = tuple(walk.of(value) for value in values)
        return Depends(structure, tuple(digests(map(_bytes, walk.arrays))))
    except (_Opaque, RecursionError):
        return None


class _Walk(Walk):
    """Everything by what it holds, tensors by content."""

    def __init__(self) -> None:
        super().__init__()
        self.arrays: list[Tensor | np.ndarray] = []
        self._places: dict[int, int] = {}
        self._count = 0

    def array(self, value: Any) -> Hashable:
        if not isinstance(value, Tensor | np.ndarray | np.generic):
            return None
        if isinstance(value, np.ndarray) and value.dtype == object:
            return "objects", value.shape, self.of(value.tolist())
        if isinstance(value, nn.UninitializedParameter) or (
            isinstance(value, Tensor) and (value.layout != torch.strided or value.is_quantized)
        ):
            raise _Opaque
        place = self._places.setdefault(id(value), len(self.arrays))
        if place == len(self.arrays):
            self.arrays.append(np.asarray(value) if isinstance(value, np.generic) else value)
        device = value.device if isinstance(value, Tensor) else None
        return "array", place, tuple(value.shape), str(value.dtype), str(device)

    def thing(self, value: Any) -> Hashable:
        self._count += 1
        if self._count > _MOST_THINGS or isinstance(value, torch.Generator | random.Random):
            raise _Opaque
        if isinstance(value, types.BuiltinMethodType) and not isinstance(
            value.__self__, types.ModuleType | type | None
        ):
            return "method", value.__name__, self.of(value.__self__)
        if isinstance(value, _CONSTANT):
            return Same(value)
        if isinstance(value, weakref.ReferenceType):
            return "reference", self.of(value())
        if isinstance(value, property | staticmethod | classmethod):
            inner = value.fget if isinstance(value, property) else value.__func__
            return type(value), self.of(inner)
        held = getattr(value, "__dict__", None)
        slots = [n for c in type(value).__mro__ for n in _slots(c) if hasattr(value, n)]
        if held is None and not slots:
            raise _Opaque
        own = [(name, self.of(getattr(value, name))) for name in slots]
        return "thing", self.of(type(value)), self.of(dict(held or {})), *own

    def kind(self, value: type) -> Hashable:
        if not is_own(value.__module__):
            return Same(value)
        names = [n for n in vars(value) if not n.startswith("__") or callable(vars(value)[n])]
        inside = [(n, self.of(vars(value)[n])) for n in names if n not in _IDLE]
        return Same(value), *inside, *(self.of(base) for base in value.__bases__)

    def module(self, value: types.ModuleType, names: Sequence[str]) -> Hashable:
        if not is_own(value.__name__):
            return Same(value)
        return self.named(vars(value), names)

    def is_followed(self, fn: types.FunctionType, source: types.FunctionType) -> bool:
        return True

    def has_own_globals(self, fn: types.FunctionType) -> bool:
        return is_own(fn.__module__)


_IDLE = {"__dict__", "__weakref__", "__class_getitem__", "__annotations__", "__subclasshook__"}
"""What every class has."""


def _slots(kind: type) -> Sequence[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else [n for n in slots if n != "__weakref__"]


def _bytes(value: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    value = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    value = torch.view_as_real(value).reshape(-1) if value.is_complex() else value
    return value.view(torch.uint8).numpy() if value.numel() else np.zeros(0)
