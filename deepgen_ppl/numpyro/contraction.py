"""Summing out factor graphs as their plans say: log sums, best states, exact draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float, Int

from deepgen_ppl.numpyro import slices
from deepgen_ppl.plans import Loop, Plan, Slot, Step
from deepgen_ppl.slices import Layout

Table = Array | tuple[Array, ...]
"""Tables of a stack, `(*cards, G, M)`, or one by one, G of `(*cards, 1, M)`."""

Tables = Sequence[Table]
"""Tables of each stack of a plan; M may be 1 where all parts share them."""


def log_sum(plan: Plan, tables: Tables, layout: Layout | None = None) -> Float[Array, " M"]:
    r"""Return the log of the sum, over all states, of the product of all tables.

    \[ \log Z = \log \sum_x \exp \sum_f \phi_f(x_f) \]

    Its gradient with respect to a table of single parts is the marginal distribution of the
    variables of that table. Tables are on the logarithmic scale, minus infinity among them, and
    every message is shifted to a largest entry of zero, so that nothing underflows.

    Args:
        plan: how the graph is summed out.
        tables: tables of each stack; not one by one with a layout.
        layout: how the plan is laid out, None to run it step by step.
    """
    if layout is not None:
        return slices.forwards(layout, jax.tree.leaves(tables), log_sum_exp).log_sum
    return _forward(plan, tables, log_sum_exp)[1]


def best(
    plan: Plan, tables: Sequence[Array], layout: Layout | None = None
) -> tuple[Int[Array, "d M"], Float[Array, " M"]]:
    """Return the most probable states of all variables together, and their sum of tables.

    Args:
        plan: how the graph is summed out.
        tables: tables of each stack.
        layout: how the plan is laid out, None to run it step by step.
    """
    value, back = _summed_out(plan, tables, layout, _max)
    return back(lambda scores, _: jnp.argmax(scores, 0), random.key(0)), value


def draw(
    plan: Plan, tables: Sequence[Array], keys: Array, layout: Layout | None = None
) -> Int[Array, "S d M"]:
    """Draw all variables together, exactly: forwards sums, and states drawn on the way back.

    Args:
        plan: how the graph is summed out.
        tables: tables of each stack.
        keys: a key for each of S draws.
        layout: how the plan is laid out, None to run it step by step.
    """
    _, back = _summed_out(plan, tables, layout, log_sum_exp)

    def pick(scores: Array, key: Array) -> Array:
        return jnp.argmax(scores + random.gumbel(key, scores.shape, scores.dtype), 0)

    return jax.vmap(lambda key: back(pick, key))(keys)


def log_sum_exp(total: Array) -> Array:
    """Return the log of the sum of the exponentials along the first axis.

    Args:
        total: numbers, minus infinity among them, of shape (K, *rest).
    """
    top = lax.stop_gradient(jnp.max(total, axis=0))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    mass = jnp.sum(jnp.exp(total - top), axis=0)
    empty = mass == 0
    return jnp.where(empty, -jnp.inf, jnp.log(jnp.where(empty, 1.0, mass))) + top


_Reduce = Callable[[Array], Array]
_Pick = Callable[[Array, Array], Array]
"""Scores of states along the first axis and a key to states."""


def _summed_out(
    plan: Plan, tables: Sequence[Array], layout: Layout | None, reduce: _Reduce
) -> tuple[Float[Array, " M"], Callable[[_Pick, Array], Int[Array, "d M"]]]:
    """Return the sum over all states, and what chooses the states on the way back."""
    if layout is None:
        arrays, value = _forward(plan, tables, reduce)
        return value, lambda pick, key: _backward(plan, arrays, pick, key)
    done = slices.forwards(layout, tables, reduce)
    count = len(plan.cards)
    return done.log_sum, lambda pick, key: slices.backwards(layout, done.flat, count, pick, key)


# ------------------------------------------------------------------------------------- forwards


def _forward(plan: Plan, tables: Tables, reduce: _Reduce) -> tuple[dict[int, Any], Array]:
    """Return all arrays by number (those of a loop with what each repetition gave), and the sum."""
    leaves = jax.tree.leaves(tables)
    width = max(table.shape[-1] for table in leaves)
    arrays: dict[int, Any] = dict(enumerate(tables))
    shift = jnp.zeros((width,), leaves[0].dtype)
    for step in plan.steps:
        if isinstance(step, Loop):
            shift = shift + _run_loop(step, arrays, reduce, width)
        else:
            parts = [_elements(arrays[slot.source], slot.index) for slot in step.slots]
            arrays[step.output], more = _summed(step, parts, reduce)
            shift = shift + more
    last = arrays[_outputs(plan)[-1]]
    return arrays, jnp.sum(last, axis=0) + shift


def _summed(step: Step, parts: Sequence[Array], reduce: _Reduce) -> tuple[Array, Array]:
    """Sum one variable out of the sum of its tables; the message's largest entry is taken off."""
    found = reduce(_added(step, parts))
    axes = tuple(range(found.ndim - 2))
    top = lax.stop_gradient(jnp.max(found, axis=axes)) if axes else lax.stop_gradient(found)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    return found - top, jnp.sum(top, axis=0)


def _added(step: Step, parts: Sequence[Array]) -> Array:
    """Return the sum of tables along the variables of a step, `(*cards, G, M)`."""
    rank = len(step.cards)
    pairs = zip(parts, step.slots, strict=True)
    tables = sorted((_aligned(p, s.axes, rank) for p, s in pairs), key=lambda table: table.size)
    total = tables[0]
    for table in tables[1:]:
        total = total + table
    return total


def _aligned(table: Array, axes: tuple[int, ...], rank: int) -> Array:
    order = tuple(np.argsort(axes))
    table = jnp.transpose(table, (*order, len(axes), len(axes) + 1))
    missing = [axis for axis in range(rank) if axis not in axes]
    return jnp.expand_dims(table, missing)


def _max(total: Array) -> Array:
    return jnp.max(total, axis=0)


def _elements(array: Table, index: Int[np.ndarray, "n G"]) -> Array:
    """Return elements of an array, each the sum of n of them."""
    (count, width), flat = index.shape, index.reshape(-1)
    if isinstance(array, tuple):
        parts = [array[i] for i in flat]
        joined = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-2)
        return _gathered(joined, count, width)
    if len(flat) == 1:
        return lax.slice_in_dim(array, int(flat[0]), int(flat[0]) + 1, axis=array.ndim - 2)
    if len(flat) != array.shape[-2] or not np.array_equal(flat, np.arange(len(flat))):
        array = jnp.take(array, jnp.asarray(flat), axis=-2)
    return _gathered(array, count, width)


def _gathered(array: Array, count: int, width: int) -> Array:
    """Add up the n elements that belong to one."""
    if count == 1:
        return array
    return jnp.sum(array.reshape(*array.shape[:-2], count, width, array.shape[-1]), axis=-3)


def _run_loop(loop: Loop, arrays: dict[int, Any], reduce: _Reduce, width: int) -> Array:
    """Run a loop; its outputs become pairs of the last and of those of all repetitions."""
    own = [step.output for step in loop.steps]
    through, fixed = _loop_inputs(loop, arrays)

    def body(carry: dict[int, Array], inputs: dict) -> tuple[dict[int, Array], Any]:
        now, shift = dict(carry), jnp.zeros((width,), jnp.result_type(float))
        for number, step in enumerate(loop.steps):
            parts = [_loop_part(number, i, slot, now, inputs, fixed, own)
                     for i, slot in enumerate(step.slots)]  # fmt: skip
            now[step.output], more = _summed(step, parts, reduce)
            shift = shift + more
        kept = {number: now[number] for number in carry}
        return kept, ({number: now[number] for number in own}, shift)

    begin = _loop_start(loop, arrays, width)
    last, (every, shifts) = lax.scan(body, begin, through)
    for number in own:
        arrays[number] = last[number] if number in last else every[number][-1]
        arrays[_each(number)] = every[number]
    return jnp.sum(shifts, axis=0)


def _loop_inputs(loop: Loop, arrays: dict[int, Any]) -> tuple[dict, dict]:
    """Return the tables that change from one repetition to the next, and those that stay."""
    own = {step.output for step in loop.steps}
    through, fixed = {}, {}
    for number, step in enumerate(loop.steps):
        for i, slot in enumerate(step.slots):
            if slot.source in own:
                continue
            array = arrays[slot.source]
            if (slot.index == slot.index[:1]).all():
                fixed[number, i] = _elements(array, slot.index[0])
                continue
            length, count, width = slot.index.shape
            taken = jnp.take(array, jnp.asarray(slot.index.reshape(-1)), axis=-2)
            taken = taken.reshape(*array.shape[:-2], length, count * width, array.shape[-1])
            through[f"{number} {i}"] = _gathered(jnp.moveaxis(taken, -3, 0), count, width)
    return through, fixed


def _loop_part(
    number: int, i: int, slot: Slot, now: dict, inputs: dict, fixed: dict, own: Sequence[int]
) -> Array:
    if slot.source in own:
        return _elements(now[slot.source], slot.index[0])
    return fixed[number, i] if (number, i) in fixed else inputs[f"{number} {i}"]


def _loop_start(loop: Loop, arrays: dict[int, Any], width: int) -> dict[int, Array]:
    """Return the outputs that stand for those of the repetition before the first one."""
    begin = {}
    for step, initial in zip(loop.steps, loop.initial, strict=True):
        if initial >= 0:
            array, count = arrays[initial], step.variables.shape[1]
            array = array[..., :count, :]
            begin[step.output] = jnp.broadcast_to(array, (*array.shape[:-1], width))
    return begin


# ------------------------------------------------------------------------------------ backwards


def _backward(plan: Plan, arrays: dict[int, Any], pick: _Pick, key: Array) -> Int[Array, "d M"]:
    """Choose the states of all variables, the last summed out first."""
    width = max(arrays[number].shape[-1] for number in range(len(plan.stacks)))
    states = jnp.zeros((len(plan.cards), width), jnp.int32)
    for number, step in reversed(list(enumerate(plan.steps))):
        own = random.fold_in(key, number)
        if isinstance(step, Loop):
            states = _loop_back(step, arrays, states, pick, own)
        else:
            parts = [_elements(arrays[slot.source], slot.index) for slot in step.slots]
            chosen = _chosen(step, parts, states[step.others], pick, own)
            states = states.at[step.variables].set(chosen)
    return states


def _loop_back(
    loop: Loop, arrays: dict[int, Any], states: Array, pick: _Pick, key: Array
) -> Int[Array, "d M"]:
    """Run a loop backwards over what each of its repetitions took."""
    own = [step.output for step in loop.steps]
    through, fixed = _loop_inputs(loop, arrays)
    start = _loop_start(loop, arrays, states.shape[-1])
    every = {number: arrays[_each(number)] for number in own}
    before = {n: jnp.concatenate([start[n][None], every[n][:-1]]) for n in start}
    places = [(jnp.asarray(s.variables), jnp.asarray(s.others)) for s in loop.steps]
    keys = random.split(key, loop.length)

    def body(states: Array, now: tuple) -> tuple[Array, None]:
        inputs, every, before, places, key = now
        for number in reversed(range(len(loop.steps))):
            step = loop.steps[number]
            known = {**before, **{n: every[n] for n in own[:number]}}
            parts = [_loop_part(number, i, slot, known, inputs, fixed, own)
                     for i, slot in enumerate(step.slots)]  # fmt: skip
            variables, others = places[number]
            chosen = _chosen(step, parts, states[others], pick, random.fold_in(key, number))
            states = states.at[variables].set(chosen)
        return states, None

    return lax.scan(body, states, (through, every, before, places, keys), reverse=True)[0]


def _chosen(
    step: Step, parts: Sequence[Array], others: Int[Array, "n G M"], pick: _Pick, key: Array
) -> Int[Array, "G M"]:
    """Choose the states of the variables of a step, those of the others given."""
    scores = jnp.zeros((1, 1, 1), parts[0].dtype)
    for part, slot in zip(parts, step.slots, strict=True):
        table = jnp.transpose(part, (*np.argsort(slot.axes), part.ndim - 2, part.ndim - 1))
        table = table if 0 in slot.axes else table[None]
        axes = [axis for axis in sorted(slot.axes) if axis]
        place = jnp.zeros(others.shape[1:], jnp.int32)
        for axis in axes:
            place = place * step.cards[axis] + others[axis - 1]
        table = table.reshape(table.shape[0], -1, *table.shape[-2:])
        table = jnp.broadcast_to(table, (*table.shape[:2], *place.shape))
        scores = scores + jnp.take_along_axis(table, place[None, None], axis=1)[:, 0]
    return pick(scores, key).astype(jnp.int32)


def _each(number: int) -> int:
    """Return the number under which what each repetition of a loop gave is kept."""
    return -1 - number


def _outputs(plan: Plan) -> list[int]:
    return [s.output for step in plan.steps
            for s in (step.steps if isinstance(step, Loop) else (step,))]  # fmt: skip
