"""Pairwise fields as log tables: densities, sweeps of a colour at a time, maxima, messages."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from deepgen_ppl.pair_graph import Colour, PairGraph


def indicators(x: Any, states: int) -> Float[Tensor, "*batch D K"]:
    """Return which value each variable has; linear in two values, so that gradients tell flips.

    Args:
        x: values, whole numbers from 0.
        states: number K of values.
    """
    x = torch.as_tensor(x)
    if states == 2:
        real = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        return torch.stack([1.0 - real, real], -1)
    numbers = torch.arange(states, device=x.device)
    return (x.unsqueeze(-1) == numbers).to(torch.get_default_dtype())


def log_density(
    graph: PairGraph, unary: Float[Tensor, "*#batch D K"], pairwise: Float[Tensor, "E K K"],
    seen: Float[Tensor, "*batch D K"],
) -> Float[Tensor, "*batch"]:  # fmt: skip
    """Return the sum of the tables' entries at values.

    Args:
        graph: the graph.
        unary: log tables of the variables.
        pairwise: log tables of the edges.
        seen: `indicators` of the values.
    """
    seen = seen.to(pairwise.dtype)
    first, second = (torch.as_tensor(ends, device=seen.device) for ends in graph.ends.T.copy())
    met = torch.einsum("...ej,ejk->...ek", seen[..., first, :], pairwise)
    return (unary * seen).sum((-2, -1)) + (met * seen[..., second, :]).sum((-2, -1))


def oriented(pairwise: Float[Tensor, "E K K"], colour: Colour) -> Float[Tensor, "n degree K K"]:
    """Return the table from each variable of a colour to each of its neighbours.

    Args:
        pairwise: log tables of the edges.
        colour: the variables.
    """
    if not pairwise.shape[0]:
        return pairwise.new_zeros((*colour.edges.shape, *pairwise.shape[1:]))
    edges, turned, real = (
        torch.as_tensor(part, device=pairwise.device)
        for part in (colour.edges, colour.turned, colour.real)
    )
    chosen = pairwise[edges]
    turned = torch.where(turned[..., None, None], chosen.transpose(-1, -2), chosen)
    return turned * real[..., None, None].to(pairwise.dtype)


def logits(
    colour: Colour, unary: Float[Tensor, "*#batch D K"], ties: Tensor, x: Int[Tensor, "*batch D"]
) -> Float[Tensor, "*batch n K"]:
    """Return the log conditionals of a colour's variables given all others, not normalised.

    Args:
        colour: the variables.
        unary: log tables of the variables.
        ties: `oriented` tables.
        x: values.
    """
    nodes, neighbours = (
        torch.as_tensor(part, device=x.device) for part in (colour.nodes, colour.neighbours)
    )
    seen = indicators(x[..., neighbours], ties.shape[-1]).to(ties.dtype)
    return unary[..., nodes, :] + torch.einsum("ndkj,...ndj->...nk", ties, seen)


def sweep(
    generator: Generator | None,
    graph: PairGraph,
    unary: Tensor,
    pairwise: Tensor,
    x: Int[Tensor, "*batch D"],
) -> Int[Tensor, "*batch D"]:
    """Draw every colour given the others, there and back, so that the sweep is reversible.

    Args:
        generator: source of the random numbers, torch's own when None.
        graph: the graph.
        unary: log tables of the variables.
        pairwise: log tables of the edges.
        x: values.
    """
    order = [*graph.colours, *graph.colours[-2::-1]]
    for colour in order:
        found = logits(colour, unary, oriented(pairwise, colour), x)
        options: dict = {"generator": generator, "dtype": found.dtype, "device": found.device}
        if found.shape[-1] == 2:
            ratio = found[..., 1] - found[..., 0]
            drawn = torch.rand(ratio.shape, **options) < torch.sigmoid(ratio)
        else:
            drawn = _categorical(found, options)
        x = x.index_copy(-1, torch.as_tensor(colour.nodes, device=x.device), drawn.to(x.dtype))
    return x


def draw(
    generator: Generator | None, unary: Float[Tensor, "D K"], num: int
) -> Int[Tensor, "num D"]:
    """Draw values of variables that do not meet.

    Args:
        generator: source of the random numbers, torch's own when None.
        unary: log tables of the variables.
        num: number of draws.
    """
    options: dict = {"generator": generator, "dtype": unary.dtype, "device": unary.device}
    return _categorical(unary.expand(num, *unary.shape), options)


def _categorical(logits: Float[Tensor, "*batch K"], options: dict) -> Int[Tensor, "*batch"]:
    noise = -torch.log(-torch.log1p(-torch.rand(logits.shape, **options)))
    return (logits + noise).argmax(-1)


def ascend(
    graph: PairGraph, unary: Tensor, pairwise: Tensor, x: Int[Tensor, "*batch D"], num_steps: int
) -> Int[Tensor, "*batch D"]:
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
    for _ in range(num_steps):
        new = x
        for colour in graph.colours:
            best = logits(colour, unary, oriented(pairwise, colour), new).argmax(-1)
            nodes = torch.as_tensor(colour.nodes, device=x.device)
            new = new.index_copy(-1, nodes, best.to(x.dtype))
        if bool((new == x).all()):
            break
        x = new
    return x


def beliefs(
    graph: PairGraph,
    unary: Tensor,
    pairwise: Tensor,
    num_steps: int,
    damping: float,
    maximal: bool,
) -> Float[Tensor, "*batch D K"]:
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
    every = graph.everyone
    back, neighbours = (
        torch.as_tensor(part, device=unary.device) for part in (graph.returning, every.neighbours)
    )
    ties = oriented(pairwise, every)  # (D, degree, own, other's)
    real = torch.as_tensor(every.real[..., None], dtype=unary.dtype, device=unary.device)

    def belief(messages: Tensor) -> Tensor:
        return unary + (messages * real).sum(-2)

    shape = (*unary.shape[:-2], *every.edges.shape, unary.shape[-1])
    messages = unary.new_zeros(shape)
    for _ in range(num_steps):
        # What neighbour j says to i about i: over j's states, j's belief without what i said.
        told = belief(messages)[..., neighbours, :] - messages.flatten(-3, -2)[..., back, :]
        table = ties + told[..., None, :]
        new = table.amax(-1) if maximal else table.logsumexp(-1)
        new = new - new.amax(-1, keepdim=True)
        messages = damping * messages + (1.0 - damping) * new
    return belief(messages)
