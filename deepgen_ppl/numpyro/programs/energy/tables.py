"""Pairwise fields as log tables: densities, sweeps of a colour at a time, maxima, messages."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jaxtyping import Float, Int

from deepgen_ppl.numpyro.programs.energy.bits import uniform
from deepgen_ppl.pair_graph import Colour, PairGraph


def indicators(x: Any, states: int) -> Float[Array, "*batch D K"]:
    """Return which value each variable has; linear in two values, so that gradients tell flips.

    Args:
        x: values, whole numbers from 0.
        states: number K of values.
    """
    x = jnp.asarray(x)
    if states == 2:
        real = x.astype(jnp.result_type(float))
        return jnp.stack([1.0 - real, real], -1)
    return jax.nn.one_hot(x.astype(int), states)


def log_density(
    graph: PairGraph, unary: Float[Array, "*#batch D K"], pairwise: Float[Array, "E K K"],
    seen: Float[Array, "*batch D K"],
) -> Float[Array, "*batch"]:  # fmt: skip
    """Return the sum of the tables' entries at values.

    Args:
        graph: the graph.
        unary: log tables of the variables.
        pairwise: log tables of the edges.
        seen: `indicators` of the values.
    """
    ends = graph.ends
    met = jnp.einsum("...ej,ejk->...ek", seen[..., ends[:, 0], :], pairwise)
    return (unary * seen).sum((-2, -1)) + (met * seen[..., ends[:, 1], :]).sum((-2, -1))


def oriented(pairwise: Float[Array, "E K K"], colour: Colour) -> Float[Array, "n degree K K"]:
    """Return the table from each variable of a colour to each of its neighbours.

    Args:
        pairwise: log tables of the edges.
        colour: the variables.
    """
    if not pairwise.shape[0]:
        return jnp.zeros((*colour.edges.shape, *pairwise.shape[1:]), pairwise.dtype)
    chosen = pairwise[colour.edges]
    turned = jnp.where(colour.turned[..., None, None], chosen.swapaxes(-1, -2), chosen)
    return turned * colour.real[..., None, None].astype(pairwise.dtype)


def logits(
    colour: Colour, unary: Float[Array, "*#batch D K"], ties: Array, x: Int[Array, "*batch D"]
) -> Float[Array, "*batch n K"]:
    """Return the log conditionals of a colour's variables given all others, not normalised.

    Args:
        colour: the variables.
        unary: log tables of the variables.
        ties: `oriented` tables.
        x: values.
    """
    seen = indicators(x[..., colour.neighbours], ties.shape[-1])
    return unary[..., colour.nodes, :] + jnp.einsum("ndkj,...ndj->...nk", ties, seen)


def sweep(
    key: Array, graph: PairGraph, unary: Array, pairwise: Array, x: Int[Array, "*batch D"]
) -> Int[Array, "*batch D"]:
    """Draw every colour given the others, there and back, so that the sweep is reversible.

    Args:
        key: random key.
        graph: the graph.
        unary: log tables of the variables.
        pairwise: log tables of the edges.
        x: values.
    """
    order = [*graph.colours, *graph.colours[-2::-1]]
    for stream, colour in enumerate(order):
        found = logits(colour, unary, oriented(pairwise, colour), x)
        if found.shape[-1] == 2:
            ratio = found[..., 1] - found[..., 0]
            drawn = uniform(key, ratio.shape, stream) < jax.nn.sigmoid(ratio)
        else:
            drawn = random.categorical(random.fold_in(key, stream), found)
        x = x.at[..., colour.nodes].set(drawn.astype(x.dtype))
    return x


def draw(key: Array, unary: Float[Array, "D K"], num: int) -> Int[Array, "num D"]:
    """Draw values of variables that do not meet.

    Args:
        key: random key.
        unary: log tables of the variables.
        num: number of draws.
    """
    return random.categorical(key, jnp.broadcast_to(unary, (num, *unary.shape)))


def ascend(
    graph: PairGraph, unary: Array, pairwise: Array, x: Int[Array, "*batch D"], num_steps: int
) -> Int[Array, "*batch D"]:
    """Set every colour to its most probable values given the others, again and again.

    Args:
        graph: the graph.
        unary: log tables of the variables.
        pairwise: log tables of the edges.
        x: values to begin with.
        num_steps: most sweeps; it stops where nothing changes.

    References:
        Besag: On the statistical analysis of dirty pictures. JRSS B 48(3), 1986.
        https://doi.org/10.1111/j.2517-6161.1986.tb01412.x
    """

    def step(carry: Any) -> Any:
        number, x, _ = carry
        new = x
        for colour in graph.colours:
            best = logits(colour, unary, oriented(pairwise, colour), new).argmax(-1)
            new = new.at[..., colour.nodes].set(best.astype(x.dtype))
        return number + 1, new, (new != x).any()

    def going(carry: Any) -> Any:
        return (carry[0] < num_steps) & carry[2]

    return lax.while_loop(going, step, (0, x, jnp.asarray(True)))[1]


def beliefs(
    graph: PairGraph, unary: Array, pairwise: Array, num_steps: int, damping: float, maximal: bool
) -> Float[Array, "*batch D K"]:
    """Pass messages along the edges; return the log beliefs of the variables, not normalised.

    Args:
        graph: the graph.
        unary: log tables of the variables.
        pairwise: log tables of the edges.
        num_steps: rounds of messages.
        damping: share of the old message that stays.
        maximal: max-product, else sum-product.

    References:
        Pearl: Probabilistic Reasoning in Intelligent Systems, 1988.
    """
    every, back = graph.everyone, graph.returning
    ties = oriented(pairwise, every)  # (D, degree, own, other's)
    real = jnp.asarray(every.real[..., None], pairwise.dtype)

    def belief(messages: Array) -> Array:
        return unary + (messages * real).sum(-2)

    def step(_: Any, messages: Array) -> Array:
        # What neighbour j says to i about i: over j's states, j's belief without what i said.
        told = (
            belief(messages)[..., every.neighbours, :]
            - messages.reshape(*messages.shape[:-3], -1, messages.shape[-1])[..., back, :]
        )
        table = ties + told[..., None, :]
        new = table.max(-1) if maximal else jax.nn.logsumexp(table, -1)
        new = new - new.max(-1, keepdims=True)
        return damping * messages + (1.0 - damping) * new

    shape = (*unary.shape[:-2], *every.edges.shape, unary.shape[-1])
    return belief(lax.fori_loop(0, num_steps, step, jnp.zeros(shape, pairwise.dtype)))
