"""Sums over factor graphs, NumPy in and out: compiled once for a plan, in chunks of its parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float, Int

from deepgen_ppl.numpyro import contraction, linear, slices
from deepgen_ppl.plans import Loop, Plan, chunk_of
from deepgen_ppl.products import few, patched, products_of
from deepgen_ppl.slices import laid_out, layout_of

Tables = Sequence[np.ndarray]
"""Log tables of each stack of a plan, `(*cards, G, M)`; M is 1 where the parts share them."""

_Chunk = Callable[[list[Array], Array, Array], tuple[Any, Any]]
"""Tables, weights and key of a chunk to values of each part and sums over parts."""

_MOST_APART = 24
"""Tables of a stack up to which they are differentiated one by one: each takes time to compile."""

_MOST_KEPT = 64
_KEPT: OrderedDict[Hashable, Callable] = OrderedDict()


def log_sums(plan: Plan, tables: Tables) -> Float[np.ndarray, " M"]:
    """Return the log of the sum over all states, for each part.

    Args:
        plan: how a part is summed out.
        tables: tables of each stack.

    Cost:
        One pass; compiling takes 0.1 to 10 s the first time a plan meets tables of these shapes.
    """
    layout = layout_of(plan, num_parts(tables))

    def chunk(tables: list[Array], weights: Array, key: Array) -> tuple[Array, tuple[()]]:
        return contraction.log_sum(plan, tables, layout), ()

    products = products_of(plan)
    if products is None or layout is not None:
        return _run(plan, "sums", (layout is not None,), tables, chunk)[0]

    def fast(tables: list[Array], weights: Array, key: Array) -> tuple[linear.Sums, tuple[()]]:
        return linear.log_sum(products, tables), ()

    sums = _run(plan, "products", (), tables, fast)[0]
    lost = np.flatnonzero(~sums.sound)
    if not len(lost):
        return sums.log_sum
    return patched(sums.log_sum, _run(plan, "sums", (False,), few(tables, lost), chunk)[0], lost)


def marginals(
    plan: Plan, tables: Tables, wanted: Sequence[int], weights: np.ndarray | None = None
) -> tuple[Float[np.ndarray, " M"], list[np.ndarray]]:
    r"""Return the log sums, and the marginal distributions over the variables of some stacks.

    \[ p(x_f) = \frac{\partial \log Z}{\partial \phi_f(x_f)} \]

    Args:
        plan: how a part is summed out.
        tables: tables of each stack.
        wanted: numbers of the stacks.
        weights: what the marginals of each part are multiplied by, ones by default.

    Returns:
        The log sums, and for each stack its marginals, of the shape of its tables: where parts
        share them, the sum over the parts. Parts of log sum minus infinity have marginals zero.

    Cost:
        Two to three times the sums alone.
    """
    own = [number for number in wanted if tables[number].shape[-1] > 1 or num_parts(tables) == 1]

    # Slopes in one of many tables together are laid out among zeros: one by one they are not.
    apart = not any(isinstance(step, Loop) for step in plan.steps)
    apart = apart and all(tables[number].shape[-2] <= _MOST_APART for number in wanted)

    def chunk(tables: list[Array], weights: Array, key: Array) -> tuple[Any, list[Array]]:
        def total(chosen: list[contraction.Table]) -> tuple[Array, Array]:
            everything: list[contraction.Table] = list(tables)
            for number, table in zip(wanted, chosen, strict=True):
                everything[number] = table
            found = contraction.log_sum(plan, everything)
            return jnp.sum(jnp.where(jnp.isfinite(found), weights * found, 0.0)), found

        chosen = [_apart(tables[number]) if apart else tables[number] for number in wanted]
        slopes, found = jax.grad(total, has_aux=True)(chosen)
        slopes = [jnp.concatenate(s, axis=-2) if apart else s for s in slopes]
        return parted(found, slopes)

    def sliced(tables: list[Array], weights: Array, key: Array) -> tuple[Any, list[Array]]:
        options = wanted, weights, contraction.log_sum_exp
        return parted(*slices.marginals(layout or laid_out(plan), tables, *options))

    def parted(found: Any, slopes: Sequence[Array]) -> tuple[Any, list[Array]]:
        """Keep the slopes of single parts apart from those that are added up."""
        pairs = list(zip(wanted, slopes, strict=True))
        return (found, [s for n, s in pairs if n in own]), [s for n, s in pairs if n not in own]

    layout = layout_of(plan, num_parts(tables))
    plain = chunk if layout is None else sliced

    def whole() -> tuple[Any, Any]:
        return _run(plan, "marginals", (*wanted, layout is not None), tables, plain, weights)

    products = products_of(plan)
    if products is None or layout is not None:
        (found, each), summed = whole()
    else:

        def fast(tables: list[Array], weights: Array, key: Array) -> tuple[Any, list[Array]]:
            return parted(*linear.marginals(products, tables, wanted, weights))

        name, static = "products and marginals", tuple(wanted)
        ((found, sound), each), summed = _run(plan, name, static, tables, fast, weights)
        lost = np.flatnonzero(~sound)
        if len(lost) and (summed or len(lost) == len(sound)):
            (found, each), summed = whole()
        elif len(lost):
            part = few(tables, lost), plain, None if weights is None else few([weights], lost)[0]
            (more, slopes), _ = _run(plan, "marginals", (*wanted, False), *part)
            found = patched(found, more, lost)
            each = [patched(s, m, lost) for s, m in zip(each, slopes, strict=True)]
    parts, sums = iter(each), iter(summed)
    return found, [next(parts) if number in own else next(sums) for number in wanted]


def best(plan: Plan, tables: Tables) -> tuple[Int[np.ndarray, "d M"], Float[np.ndarray, " M"]]:
    """Return the most probable states of all variables together, and the sum of their tables.

    Args:
        plan: how a part is summed out.
        tables: tables of each stack.
    """
    layout = layout_of(plan, num_parts(tables))

    def chunk(tables: list[Array], weights: Array, key: Array) -> tuple[Any, tuple[()]]:
        return contraction.best(plan, tables, layout), ()

    return _run(plan, "best", (layout is not None,), tables, chunk)[0]


def draws(plan: Plan, tables: Tables, num_samples: int, seed: int) -> Int[np.ndarray, "S d M"]:
    """Return exact draws of all variables together.

    Args:
        plan: how a part is summed out.
        tables: tables of each stack.
        num_samples: number S of draws of each part.
        seed: seeds them.
    """
    layout = layout_of(plan, num_parts(tables))

    def chunk(tables: list[Array], weights: Array, key: Array) -> tuple[Array, tuple[()]]:
        return contraction.draw(plan, tables, random.split(key, num_samples), layout), ()

    return _run(plan, "draws", (num_samples, layout is not None), tables, chunk, seed=seed)[0]


def slopes(plan: Plan, tables: Tables, directions: Tables) -> Float[np.ndarray, " M"]:
    r"""Return how the log sums change where the tables move in a direction.

    \[ \frac{d}{dt} \log Z(\phi + t \delta) = \sum_f E_p[\delta_f(x_f)] \]

    Args:
        plan: how a part is summed out.
        tables: tables of each stack.
        directions: a finite direction for each table, of the same shapes.
    """
    count, layout = len(tables), layout_of(plan, num_parts(tables))

    def chunk(both: list[Array], weights: Array, key: Array) -> tuple[Array, tuple[()]]:
        moved = tuple(both[:count]), tuple(both[count:])
        slope = jax.jvp(lambda *tables: contraction.log_sum(plan, tables, layout), *moved)[1]
        return slope, ()

    return _run(plan, "slopes", (layout is not None,), [*tables, *directions], chunk)[0]


def num_parts(tables: Tables) -> int:
    """Return the number M of parts."""
    return max(table.shape[-1] for table in tables)


def _run(
    plan: Plan,
    name: str,
    static: tuple,
    tables: Tables,
    chunk: _Chunk,
    weights: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Apply a function to chunks of the parts, and return NumPy arrays."""
    width = num_parts(tables)
    size = chunk_of(plan, width)
    count = -(-width // size)
    dtype = jnp.result_type(float)
    shared = tuple(table.shape[-1] == 1 for table in tables)
    key = (plan.key, name, static, width, shared, str(dtype))
    if key not in _KEPT:

        def chunks(tables: list[Array], weights: Array, key: Array) -> tuple[Any, Any]:
            split = [
                table if alone else _split(table, count, size)
                for table, alone in zip(tables, shared, strict=True)
            ]
            own = [i for i, alone in enumerate(shared) if not alone]

            def one(at: tuple) -> tuple[Any, Any]:
                parts, weights, number = at
                now = list(split)
                for i, part in zip(own, parts, strict=True):
                    now[i] = part
                return chunk(now, weights, random.fold_in(key, number))

            per_chunk = [split[i] for i in own]
            weights, numbers = weights.reshape(count, size), jnp.arange(count)
            parts, sums = lax.map(one, (per_chunk, weights, numbers))
            joined = jax.tree.map(lambda leaf: _joined(leaf)[..., :width], parts)
            return joined, jax.tree.map(lambda leaf: jnp.sum(leaf, 0), sums)

        _KEPT[key] = jax.jit(chunks)
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)
    _KEPT.move_to_end(key)
    given = np.zeros(count * size)
    given[:width] = 1.0 if weights is None else weights
    arrays = [np.asarray(table, dtype) for table in tables]
    found = _KEPT[key](arrays, given.astype(dtype), random.key(seed))
    return jax.device_get(found)


def _apart(table: Array) -> tuple[Array, ...]:
    """Return the tables of a stack one by one."""
    return tuple(jnp.split(table, table.shape[-2], axis=-2))


def _split(table: Array, count: int, size: int) -> Array:
    """Return the parts of a table in chunks along a leading axis; the last part fills it up."""
    missing = count * size - table.shape[-1]
    table = jnp.pad(table, [(0, 0)] * (table.ndim - 1) + [(0, missing)], mode="edge")
    return jnp.moveaxis(table.reshape(*table.shape[:-1], count, size), -2, 0)


def _joined(leaf: Array) -> Array:
    moved = jnp.moveaxis(leaf, 0, -2)
    return moved.reshape(*moved.shape[:-2], -1)
