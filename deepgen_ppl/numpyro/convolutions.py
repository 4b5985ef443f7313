"""Convolutions of a compiled function, laid out so that XLA computes them fast inside of loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun


def trace(fn: Callable[..., Any], *args: Any) -> Any:
    """Return a function as `jax.jit(fn).trace(*args)` does, with fast convolutions in its loops.

    XLA's compiler for CPUs brings a convolution into the layout of its fast kernels at the top of a
    program only. Inside of a loop the gradients of a convolution, where channels and rows have
    changed places, are computed by plain loops, some hundred times slower. Here they are
    transposed, convolved with channels last, and transposed back.

    Args:
        fn: the function.
        *args: its arguments, or their shapes.

    Returns:
        What is lowered by `.lower()`.

    Cost:
        A walk over the equations; a second trace where a loop holds such a convolution.

    Example:
        >>> import jax.numpy as jnp
        >>> def looped(x, weight):
        ...     return lax.fori_loop(0, 2, lambda i, x: lax.conv(x, weight, (1, 1), "SAME"), x)
        >>> args = jnp.ones((1, 3, 4, 4)), jnp.ones((3, 3, 3, 3))
        >>> found = trace(looped, *args).lower().compile()(*args)
        >>> bool(jnp.allclose(found, looped(*args)))
        True
    """
    traced = jax.jit(fn).trace(*args)
    if jax.default_backend() != "cpu" or not any(_slow(traced.jaxpr.jaxpr, inside=False)):
        return traced
    run, tree = jaxpr_as_fun(_renewed(traced.jaxpr)), jax.tree.structure(traced.out_info)

    def laid_out(*args: Any) -> Any:
        return jax.tree.unflatten(tree, run(*jax.tree.leaves(args)))

    return jax.jit(laid_out).trace(*args)


def _slow(jaxpr: Any, inside: bool) -> Iterator[bool]:
    for equation in jaxpr.eqns:
        if equation.primitive is lax.conv_general_dilated_p:
            yield inside and _misplaced(equation.params)
        within = inside or equation.primitive in (lax.scan_p, lax.while_p)
        for part in _parts(equation.params):
            yield from _slow(part.jaxpr, within)


def _misplaced(params: dict[str, Any]) -> bool:
    numbers = params["dimension_numbers"]
    return params["batch_group_count"] == 1 and numbers != _channels_last(len(numbers.lhs_spec))


def _channels_last(ndim: int) -> lax.ConvDimensionNumbers:
    image = (0, ndim - 1, *range(1, ndim - 1))
    return lax.ConvDimensionNumbers(image, (ndim - 1, ndim - 2, *range(ndim - 2)), image)


def _parts(params: dict[str, Any]) -> Iterator[ClosedJaxpr]:
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part


def _renewed(value: Any) -> Any:
    """Return a parameter of an equation with the convolutions in it laid out anew."""
    if isinstance(value, tuple | list) and any(isinstance(part, ClosedJaxpr) for part in value):
        return type(value)(map(_renewed, value))
    if isinstance(value, ClosedJaxpr) and any(_slow(value.jaxpr, inside=True)):
        equations = [_replaced(equation) for equation in value.jaxpr.eqns]
        return value.replace(jaxpr=value.jaxpr.replace(eqns=equations))
    return value


def _replaced(equation: Any) -> Any:
    params = equation.params
    if equation.primitive is lax.conv_general_dilated_p and _misplaced(params):
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
        (call,) = jax.make_jaxpr(jax.jit(partial(_convolved, **params)))(*shapes).eqns
        return equation.replace(primitive=call.primitive, params=call.params)
    return equation.replace(params={key: _renewed(value) for key, value in params.items()})


def _convolved(lhs: Any, rhs: Any, *, dimension_numbers: Any, **params: Any) -> Any:
    """Convolve with channels last what has other dimension numbers."""
    image, kernel, out = dimension_numbers
    plain = _channels_last(lhs.ndim)
    lhs = lax.transpose(lhs, (image[0], *image[2:], image[1]))
    rhs = lax.transpose(rhs, (*kernel[2:], kernel[1], kernel[0]))
    found: Any = lax.conv_general_dilated_p.bind(lhs, rhs, dimension_numbers=plain, **params)
    placed = (out[0], *out[2:], out[1])  # where each axis of the result belongs
    return lax.transpose(found, tuple(placed.index(axis) for axis in range(lhs.ndim)))
