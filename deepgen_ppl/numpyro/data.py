"""Data as the verbs take them: positional arrays whose leading axis is the data axis."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.core import Tracer
from numpyro.infer.autoguide import AutoGuide
from numpyro.primitives import Messenger

from deepgen_ppl import data_checks


@jax.tree_util.register_pytree_node_class
class Constant:
    """A value that is no array (a string, a size, a module): never traced, compared by value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def tree_flatten(self) -> tuple[tuple[()], Constant]:
        """Return no children: the value is structure."""
        return (), self

    @classmethod
    def tree_unflatten(cls, aux: Constant, _: tuple[()]) -> Constant:
        """Return the constant itself."""
        return aux

    def __eq__(self, other: object) -> bool:
        """Compare by type and value, by identity where values cannot be hashed."""
        if not isinstance(other, Constant) or type(self.value) is not type(other.value):
            return False
        try:
            hash(self.value)
        except TypeError:
            return self.value is other.value
        return bool(self.value == other.value)

    def __hash__(self) -> int:
        """Hash the value, or its identity."""
        try:
            return hash(self.value)
        except TypeError:
            return id(self.value)


class Inputs(NamedTuple):
    """All that a program is called with: a pytree whose leaves are arrays (traced inputs).

    Attributes:
        data: the data arguments, gathered to the batch rows where there is a batch.
        model: positional and keyword arguments bound to the model.
        guide: positional and keyword arguments bound to the guide.
    """

    data: tuple
    model: tuple[tuple, dict] = ((), {})
    guide: tuple[tuple, dict] = ((), {})

    @property
    def num_rows(self) -> int:
        """Leading axis of the data arrays (0 without arrays)."""
        return next((len(leaf) for leaf in jax.tree.leaves(self.data) if jnp.ndim(leaf)), 0)

    def gather(self, rows: jax.Array) -> Inputs:
        """Return the inputs with the data arrays cut to some rows."""
        data = jax.tree.map(
            lambda x: jnp.take(x, rows, axis=0, mode="clip") if jnp.ndim(x) else x, self.data
        )
        return self._replace(data=data)


def as_inputs(tree: Any) -> Any:
    """Return a tree of arguments with arrays on the device and all else as constants."""
    if isinstance(tree, dict):
        return {key: as_inputs(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(as_inputs, tree))
    if isinstance(tree, tuple | list):
        return type(tree)(map(as_inputs, tree))
    if isinstance(tree, eqx.Module):  # its weights are inputs, whatever else it holds is structure
        return jax.tree.map(lambda x: x if eqx.is_inexact_array(x) else _constant(x), tree)
    if isinstance(tree, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        return tree if isinstance(tree, jax.ShapeDtypeStruct) else jnp.asarray(tree)
    return tree if tree is None or isinstance(tree, Constant) else Constant(tree)


def _constant(leaf: Any) -> Any:
    return leaf if isinstance(leaf, Constant | jax.ShapeDtypeStruct) else Constant(leaf)


def as_arguments(tree: Any) -> Any:
    """Return inputs as a program takes them: constants unwrapped."""
    return jax.tree.map(
        lambda leaf: leaf.value if isinstance(leaf, Constant) else leaf,
        tree,
        is_leaf=lambda leaf: isinstance(leaf, Constant),
    )


def unwrap(fn: Callable) -> tuple[Callable, tuple, dict]:
    """Peel `functools.partial`: the function, its bound positional and its bound keyword arguments.

    Example:
        >>> from functools import partial
        >>> unwrap(partial(partial(max, 1), 2, key=abs))[1:]
        ((1, 2), {'key': <built-in function abs>})
    """
    args: tuple = ()
    kwargs: dict = {}
    while isinstance(fn, functools.partial):
        args, kwargs = (*fn.args, *args), {**fn.keywords, **kwargs}
        fn = fn.func
    return fn, args, kwargs


def bare(fn: Callable) -> Callable:
    """Return the user's own function below handlers."""
    while True:
        if isinstance(fn, Messenger) and fn.fn is not None:
            fn = fn.fn
        elif isinstance(fn, functools.partial):
            fn = fn.func
        else:
            return fn


def argument_names(fn: Callable, num_bound: int, count: int) -> tuple[str, ...]:
    """Return the names of the data arguments, as the program's own signature has them."""
    names = [f"data[{i}]" for i in range(count)]
    try:
        target = bare(fn)
        target = target.model if isinstance(target, AutoGuide) else target
        parameters = list(inspect.signature(target).parameters.values())[num_bound:]
    except (TypeError, ValueError):
        return tuple(names)
    for i, parameter in enumerate(parameters[:count]):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names[i] = parameter.name
    return tuple(names)


def check(names: Sequence[str], data: Sequence, batch_size: int | None = None) -> int | None:
    """Return the number of rows of the data (None where arrays disagree) after checking them.

    Raises:
        ValueError: empty arrays, NaN, or what `data_checks.check_rows` refuses.
    """
    data_checks.check_arrays(dict(zip(names, data, strict=True)))
    leaves = [
        (name, leaf)
        for name, tree in zip(names, data, strict=True)
        for leaf in jax.tree.leaves(tree)
        if isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)
    ]
    num_rows = data_checks.check_rows({name: leaf.shape for name, leaf in leaves}, batch_size)
    for name, leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not isinstance(leaf, jax.ShapeDtypeStruct):
            data_checks.check_nan(name, np.asarray(leaf))
    return num_rows


def as_key(seed: int | Array) -> Array:
    """Return a JAX random key from an int, or the key itself."""
    if isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed must be an int or a jax.random.key, not {seed!r}.")
    return random.key(seed)


def check_own(fn: Callable, data: Sequence) -> None:
    """Let a ready program check its data by itself, where they are more than shapes."""
    owner = getattr(bare(fn), "__self__", None)
    leaves = [leaf for leaf in jax.tree.leaves(tuple(data)) if jnp.ndim(leaf)]
    shapes = any(isinstance(leaf, jax.ShapeDtypeStruct | Tracer) for leaf in leaves)
    if isinstance(owner, data_checks.ChecksData) and not shapes:
        owner.check_data(*(None if value is None else np.asarray(value) for value in data))
