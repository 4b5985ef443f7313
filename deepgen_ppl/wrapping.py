"""Modules inside functions, whose parameters no language sees."""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any


def wrapped(net: Any, kinds: type | tuple[type, ...]) -> Any:
    """Return the module that a function wraps, None where there is none, or it is a module itself.

    Args:
        net: a module or a function.
        kinds: classes of modules.

    Example:
        >>> from functools import partial
        >>> class Net:
        ...     def __call__(self, x, scale=1.0):
        ...         return scale * x
        >>> net = Net()
        >>> wrapped(partial(net, scale=2.0), Net) is net, wrapped(net, Net), wrapped(len, Net)
        (True, None, None)
    """
    inner = net
    while not isinstance(inner, kinds):
        if isinstance(inner, MethodType):
            return inner.__self__ if isinstance(inner.__self__, kinds) else None
        inner = inner.func if isinstance(inner, partial) else getattr(inner, "__wrapped__", None)
        if inner is None:
            return None
    return None if inner is net else inner


def check_registered(name: str, net: Any, kinds: type | tuple[type, ...], cure: str) -> None:
    """Refuse a function around a module, such as `vmap(module)`, whose parameters would stay.

    Args:
        name: what the network is called.
        net: a module or a function.
        kinds: classes of modules.
        cure: what to pass in its place, as a sentence.

    Raises:
        TypeError: naming the module and the cure.
    """
    found = wrapped(net, kinds)
    if found is not None:
        raise TypeError(
            f"{name} is a function around a module ({type(found).__name__}), whose parameters "
            f"would not be learned: only a module itself is registered. {cure} A module that is "
            "to stay as it is goes into a function of your own, lambda x: module(x)."
        )
