"""Modules inside functions, whose parameters no language sees."""

from __future__ import annotations

from typing import Any

_AROUND = ("__wrapped__", "func", "__self__")  # of vmap and jit, of partial, of a bound method


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
    while not isinstance(net, kinds):
        inner = (getattr(net, name, None) for name in _AROUND)
        net = next((value for value in inner if value is not None), None)
        if net is None:
            return None
        if isinstance(net, kinds):
            return net
    return None


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
