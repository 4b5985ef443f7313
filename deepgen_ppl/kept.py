"""What is kept for an owner while it lives, and a function's surroundings as the key to it."""

from __future__ import annotations

import functools
import inspect
import sys
import types
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")

_INSTALLED = ("site-packages", "dist-packages")

PLAIN = (type(None), bool, int, float, complex, str, bytes)
"""Values that count by content."""


class Kept(Generic[Value]):
    """What was made for an owner (held weakly, by identity), by key.

    A value must not hold its owner, which it would keep alive.
    """

    def __init__(self) -> None:
        self._tables: dict[int, tuple[Any, dict[Hashable, Value]]] = {}

    def of(self, owner: Any) -> dict[Hashable, Value]:
        """Return the table of an owner; one that takes no weak reference has none that lasts."""
        owner = getattr(owner, "__self__", owner)  # a bound method is a new object at every access
        found = self._tables.get(id(owner))
        if found is not None and found[0]() is owner:
            return found[1]
        table: dict[Hashable, Value] = {}
        try:
            reference = weakref.ref(owner, partial(self._forget, id(owner)))
        except TypeError:
            return table
        self._tables[id(owner)] = (reference, table)
        return table

    def clear(self) -> None:
        """Forget everything."""
        self._tables.clear()

    def _forget(self, key: int, _: Any) -> None:
        self._tables.pop(key, None)


class Same:
    """An object by its identity, held weakly where Python allows that."""

    def __init__(self, value: Any) -> None:
        self._hash = id(value)
        try:
            self._get: Callable[[], Any] = weakref.ref(value)
        except TypeError:
            self._get = lambda: value

    def __eq__(self, other: object) -> bool:
        """Tell whether both are the same living object."""
        own = self._get()
        return isinstance(other, Same) and own is not None and own is other._get()

    def __hash__(self) -> int:
        """Hash the identity."""
        return self._hash


class Walk(ABC):
    """A walk from some values to all that functions among them depend on beside their arguments.

    Numbers, strings and containers count by content; functions by their code, their closure, their
    defaults and the globals they name, and so on for functions among these. What arrays and other
    objects count by is each wing's own.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, Any]] = {}

    @abstractmethod
    def array(self, value: Any) -> Hashable:
        """Return what an array counts by, None where a value is none."""

    @abstractmethod
    def thing(self, value: Any) -> Hashable:
        """Return what any other object counts by."""

    @abstractmethod
    def kind(self, value: type) -> Hashable:
        """Return what a class counts by."""

    @abstractmethod
    def module(self, value: types.ModuleType, names: Sequence[str]) -> Hashable:
        """Return what a module counts by of which some code may use some names."""

    @abstractmethod
    def is_followed(self, fn: types.FunctionType, source: types.FunctionType) -> bool:
        """Tell whether a function that another one names is followed, or counts by identity."""

    @abstractmethod
    def has_own_globals(self, fn: types.FunctionType) -> bool:
        """Tell whether the globals that a function names may change."""

    def of(self, value: Any) -> Hashable:
        """Return what a value counts by."""
        if isinstance(value, PLAIN):
            return type(value), repr(value)
        found = self.array(value)
        if found is not None:
            return found
        if id(value) in self._seen:
            return "seen", self._seen[id(value)][0]
        self._seen[id(value)] = len(self._seen), value
        if isinstance(value, types.MethodType):
            return "method", self.of(value.__self__), self.of(value.__func__)
        if isinstance(value, functools.partial):
            return "partial", *(self.of(x) for x in (value.func, value.args, value.keywords))
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, tuple | list):
            return type(value), *(self.of(item) for item in value)
        if isinstance(value, set | frozenset):
            return type(value), frozenset(self.of(item) for item in value)
        if isinstance(value, Mapping):
            return type(value), *((self.of(k), self.of(v)) for k, v in value.items())
        if isinstance(value, type):
            return self.kind(value)
        if isinstance(value, types.ModuleType):
            return self.module(value, ())
        return self.thing(value)

    def named(self, space: Mapping[str, Any], names: Sequence[str], fn: Any = None) -> Hashable:
        """Return what those of some names count by that stand in a room of names.

        Args:
            space: the room.
            names: the names.
            fn: the function that uses them.
        """
        found: list[Hashable] = []
        for name in names:
            if name not in space:
                continue
            value = space[name]
            apart = inspect.isfunction(value) and fn and not self.is_followed(value, fn)
            if isinstance(value, types.ModuleType) and id(value) not in self._seen:
                self._seen[id(value)] = len(self._seen), value
                found.append((name, self.module(value, names)))
            else:
                found.append((name, Same(value) if apart else self.of(value)))
        return tuple(found)

    def _function(self, fn: types.FunctionType) -> Hashable:
        cells = []
        for cell in fn.__closure__ or ():
            try:
                cells.append(self.of(cell.cell_contents))
            except ValueError:  # the cell is still empty
                cells.append("empty")
        defaults = self.of(fn.__defaults__), self.of(fn.__kwdefaults__)
        return fn.__code__, *cells, *defaults, self._globals(fn)

    def _globals(self, fn: types.FunctionType) -> Hashable:
        if not self.has_own_globals(fn):
            return ()
        return self.named(fn.__globals__, names_of(fn.__code__), fn)


def names_of(code: types.CodeType) -> list[str]:
    """Return the names that some code uses, functions inside it among it.

    Example:
        >>> names_of((lambda x: abs(x).real).__code__)
        ['abs', 'real']
    """
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return list(dict.fromkeys([*code.co_names, *(n for c in inner for n in names_of(c))]))


def is_installed(fn: types.FunctionType) -> bool:
    """Tell whether a function is installed code, whose globals stay."""
    return _INSTALLED[0] in fn.__code__.co_filename


def is_own(name: str | None) -> bool:
    """Tell whether a module is neither installed nor a part of Python or of this package.

    Args:
        name: its name.

    Example:
        >>> is_own("numpy.linalg"), is_own("json"), is_own("__main__")
        (False, False, True)
    """
    root = (name or "").partition(".")[0]
    if root == "__main__":  # also where a notebook's or a test runner's is an installed file
        return True
    if root == __name__.partition(".")[0] or root in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(root), "__file__", None) or ""
    return not any(folder in file for folder in _INSTALLED)
