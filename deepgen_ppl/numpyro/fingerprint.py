"""What a function's code depends on beside its arguments: closures, globals and objects."""

from __future__ import annotations

import sys
import types
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from numpyro.primitives import _PYRO_STACK

from deepgen_ppl.kept import PLAIN, Same, Walk, is_installed, is_own

_CONTENT_BYTES = 1 << 16


def fingerprint(*values: Any) -> Hashable:
    """Return a key that changes when code traced from some values would.

    Numbers, strings, containers and small arrays count by content; functions by their code, their
    closure, their defaults and the globals they name (and so on for functions of the same file);
    all other objects by identity and by their attributes that are numbers or strings. What is
    changed in place deeper inside an object, or inside an array of more than 64 KiB, is not seen.

    Args:
        *values: functions, settings, optimizers.

    Cost:
        About 0.1 ms for a model.

    Example:
        >>> def scaled(scale):
        ...     return lambda x: scale * x
        >>> fingerprint(scaled(2)) == fingerprint(scaled(2))
        True
        >>> fingerprint(scaled(2)) == fingerprint(scaled(3))
        False
    """
    walk = _Walk()
    return tuple(walk.of(value) for value in values)


def entire(value: Any) -> Hashable | None:
    """Return a key to all that a function depends on; None where some of it would not be seen.

    Args:
        value: a function.

    Example:
        >>> def scaled(scale):
        ...     return lambda x: scale * x
        >>> entire(scaled(2)) == entire(scaled(2))
        True
        >>> entire(scaled(object()))  # which may change inside
    """
    walk = _Walk()
    found = walk.of(value)
    return found if walk.sees_all else None


def surroundings() -> Hashable:
    """Return a key of the effect handlers that are active around a call.

    Example:
        >>> surroundings()
        ()
    """
    return fingerprint(*((handler, vars(handler)) for handler in _PYRO_STACK))


class _Walk(Walk):
    """Objects by identity, and small arrays by content.

    Attributes:
        sees_all: whether nothing was met that may change inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sees_all = True

    def array(self, value: Any) -> Hashable:
        if not isinstance(value, np.ndarray | np.generic | jax.Array):
            return None
        typed = isinstance(value, jax.Array)
        typed = typed and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
        if typed or isinstance(value, Tracer) or value.nbytes > _CONTENT_BYTES:
            self.sees_all &= isinstance(value, jax.Array)  # which never change
            return Same(value)
        return value.shape, str(value.dtype), np.asarray(value).tobytes()

    def thing(self, value: Any) -> Hashable:
        if not isinstance(value, types.BuiltinFunctionType | np.ufunc | np.dtype):
            self.sees_all = False
        return Same(value), _network(value), _plain_attributes(value)

    def kind(self, value: type) -> Hashable:
        self.sees_all &= not is_own(value.__module__)
        return Same(value)

    def module(self, value: types.ModuleType, names: Sequence[str]) -> Hashable:
        self.sees_all &= not is_own(value.__name__)
        return Same(value)

    def is_followed(self, fn: types.FunctionType, source: types.FunctionType) -> bool:
        found = fn.__globals__ is source.__globals__
        self.sees_all &= found or not is_own(fn.__module__)
        return found

    def has_own_globals(self, fn: types.FunctionType) -> bool:
        return not is_installed(fn)


def _network(value: Any) -> Hashable:
    """Return the static structure of an nnx module, whose flags are changed in place."""
    nnx = sys.modules.get("flax.nnx")
    return nnx.graphdef(value) if nnx is not None and isinstance(value, nnx.Module) else None


def _plain_attributes(value: Any) -> Hashable:
    held = getattr(value, "__dict__", {})
    return tuple((n, type(x), repr(x)) for n, x in held.items() if isinstance(x, PLAIN))
