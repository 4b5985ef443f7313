"""Factor graphs of many unlike steps, summed out slice by slice: one loop for many of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jaxtyping import Float, Int

from deepgen_ppl.slices import Layout, Slices

Tables = Sequence[Array]
"""Log tables of each stack of a plan, `(*cards, G, M)`; M may be 1 where all parts share them."""

Reduce = Callable[[Array], Array]
"""What sums the states of a variable out, along the first axis."""


class Forwards(NamedTuple):
    """What summing out gives.

    Attributes:
        flat: every number, at its place.
        log_sum: the log of the sum over all states, or the greatest summand.
        shares: for each loop, the share of each state given those of the others, where wanted.
    """

    flat: Float[Array, "E M"]
    log_sum: Float[Array, " M"]
    shares: list[Float[Array, "L K G S M"]]


def forwards(layout: Layout, tables: Tables, reduce: Reduce, shared: bool = False) -> Forwards:
    """Sum all variables out.

    Args:
        layout: where everything stands.
        tables: tables of each stack.
        reduce: how one variable is summed out.
        shared: whether the shares of states are wanted, for `marginals`.
    """
    width = max(table.shape[-1] for table in tables)
    kind = tables[0].dtype
    parts = [jnp.array([[0.0], [-jnp.inf]], kind), *(t.reshape(-1, t.shape[-1]) for t in tables)]
    known = jnp.concatenate([jnp.broadcast_to(p, (len(p), width)) for p in parts])
    flat = jnp.concatenate([known, jnp.zeros((layout.size - len(known), width), kind)])

    def body(flat: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array | None]]:
        places, output = now
        total = jnp.sum(flat[places], axis=0)
        found = reduce(total)
        top = lax.stop_gradient(jnp.max(found, axis=1))
        top = jnp.where(jnp.isfinite(top), top, 0.0)
        message = (found - top[:, None]).reshape(-1, width)
        flat = lax.dynamic_update_slice_in_dim(flat, message, output, 0)
        share = jnp.where(jnp.isneginf(total), 0.0, jnp.exp(total - found)) if shared else None
        return flat, (jnp.sum(top, axis=0), share)

    shift, shares = jnp.zeros((width,), kind), []
    for loop in map(_arrays, layout.loops):
        flat, (tops, share) = lax.scan(body, flat, (loop.places, loop.outputs))
        shift = shift + jnp.sum(tops, axis=0)
        shares.append(share)
    return Forwards(flat, flat[layout.last] + shift, shares)


def marginals(
    layout: Layout,
    tables: Tables,
    wanted: Sequence[int],
    weights: Float[Array, " M"],
    reduce: Reduce,
) -> tuple[Float[Array, " M"], list[Array]]:
    r"""Return the log sums, and their derivatives in the log tables of some stacks.

    \[ \frac{\partial \log Z}{\partial \phi_f(x_f)} = p(x_f) \]

    Args:
        layout: where everything stands.
        tables: tables of each stack.
        wanted: numbers of the stacks.
        weights: what the derivatives of each part are multiplied by.
        reduce: the log of the sum of the exponentials.
    """
    done = forwards(layout, tables, reduce, shared=True)
    slopes = jnp.zeros_like(done.flat)
    slopes = slopes.at[layout.last].set(jnp.where(jnp.isfinite(done.log_sum), weights, 0.0))

    def body(slopes: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
        places, output, share = now
        shape = share.shape[1:]
        own = lax.dynamic_slice_in_dim(slopes, output, shape[0] * shape[1], 0).reshape(shape)
        moved = jnp.broadcast_to(share * own, (*places.shape, shape[-1]))
        return slopes.at[places].add(moved), None

    loops = map(_arrays, reversed(layout.loops))
    for loop, share in zip(loops, reversed(done.shares), strict=True):
        slopes, _ = lax.scan(body, slopes, (loop.places, loop.outputs, share), reverse=True)
    found = []
    for number in wanted:
        table, start = tables[number], layout.starts[number]
        entries = table.size // table.shape[-1]
        slope = slopes[start : start + entries].reshape(*table.shape[:-1], -1)
        alone = table.shape[-1] < slope.shape[-1]
        found.append(jnp.sum(slope, -1, keepdims=True) if alone else slope)
    return done.log_sum, found


def backwards(
    layout: Layout, flat: Float[Array, "E M"], num_variables: int, pick: Callable, key: Array
) -> Int[Array, "d M"]:
    """Choose the states of all variables, the last summed out first.

    Args:
        layout: where everything stands.
        flat: every number, by `forwards`.
        num_variables: number d of variables.
        pick: scores and a key to states.
        key: seeds the choice.
    """
    states = jnp.zeros((num_variables + 1, flat.shape[-1]), jnp.int32)  # the last is nobody's

    def body(states: Array, now: tuple[Slices, Array]) -> tuple[Array, None]:
        loop, own = now
        at = jnp.sum(states[loop.others] * loop.strides[..., None], axis=0)  # G, M
        places = jnp.take_along_axis(loop.places, at[None, None], axis=-1)  # n, K, G, M
        scores = jnp.take_along_axis(flat, places.reshape(-1, at.shape[-1]), axis=0)
        scores = jnp.sum(scores.reshape(places.shape), axis=0)
        chosen = pick(scores, own).astype(jnp.int32)
        return states.at[loop.variables].set(chosen), None

    for number, loop in reversed(list(enumerate(layout.loops))):
        keys = random.split(random.fold_in(key, number), len(loop.outputs))
        states, _ = lax.scan(body, states, (_arrays(loop), keys), reverse=True)
    return states[:-1]


def _arrays(loop: Slices) -> Any:
    """Return a loop as arrays of JAX."""
    return jax.tree.map(jnp.asarray, loop)
