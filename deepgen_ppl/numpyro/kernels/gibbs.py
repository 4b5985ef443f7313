"""Gibbs sampling of discrete coordinates on a batch of chains, in blocks that move at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float, Int

from deepgen_ppl.blocks import Blocks
from deepgen_ppl.checks import check_positive
from deepgen_ppl.discrete import check_scan

__all__ = ["Gibbs", "GibbsInfo", "GibbsState", "init", "step"]

Terms = Callable[[Int[Array, "*batch D"]], Float[Array, "*batch T"]]


@dataclass(frozen=True)
class Gibbs:
    r"""Gibbs sampling: every discrete coordinate is drawn from its exact full conditional.

    \[ x_d \sim p(x_d \mid x_{-d}, z) \propto \exp \sum_{t \ni d} f_t(x_d, x_{-d}, z) \]

    Coordinates that share no term of the log density are independent given the others and move at
    once: the rows of a mixture in one update, a chain in two, a grid written edge by edge in two. A
    coordinate that shares a term with all others, as in a factor of all of them, moves by itself.
    Which ones share terms is found by moving them; that the parts add up to the whole is checked
    in every eighth sweep. Continuous latents are moved by another kernel in between.

    Args:
        continuous: Kernel of the continuous latents given the discrete ones: `"chees"`, `"hmc"`, or
            the options of one, as `ChEES(max_num_steps=16)`.
        num_discrete_steps: Sweeps over all discrete coordinates for a step of the continuous ones,
            or for a draw where there are none.
        scan: `"systematic"` moves the blocks in the same order in each sweep, `"random"` in a new
            one; both leave the posterior invariant.

    Raises:
        ValueError: An option is out of its range.

    Cost:
        A sweep takes K - 1 densities of all chains for each block, of coordinates of K values.

    References:
        Geman and Geman: Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of
        images. IEEE Transactions on Pattern Analysis and Machine Intelligence 6(6), 1984.

        Gonzalez, Low, Gretton, Guestrin: Parallel Gibbs sampling: from colored fields to thin
        junction trees. AISTATS 2011. https://proceedings.mlr.press/v15/gonzalez11a.html

    Example:
        >>> Gibbs(num_discrete_steps=2).scan
        'systematic'
    """

    continuous: Any = "chees"
    num_discrete_steps: int = 1
    scan: str = "systematic"

    def __post_init__(self) -> None:
        check_positive(num_discrete_steps=self.num_discrete_steps)
        check_scan(self.scan)


class GibbsState(NamedTuple):
    """What the next sweep needs.

    Attributes:
        position: Coordinates of each chain: numbers of values.
        terms: Terms of the log density there.
    """

    position: Int[Array, "*batch D"]
    terms: Float[Array, "*batch T"]


class GibbsInfo(NamedTuple):
    """What diagnostics need.

    Attributes:
        acceptance: Share of the moves that were accepted: 1, as all are.
        changed: Share of the coordinates that have another value after the sweep.
        discrepancy: Largest difference between the terms as they were put together in the sweep and
            as they are, relative to 1 + their size; 0 where it was not asked for. Above rounding,
            the blocks are wrong.
    """

    acceptance: Float[Array, "*batch"]
    changed: Float[Array, "*batch"]
    discrepancy: Float[Array, "*batch"]


class Table(NamedTuple):
    """Blocks as the arrays that sweeps gather by; see `table`.

    Attributes:
        cardinality: Number of values of each coordinate.
        coordinates: Coordinates of each block, D for none.
        elements: Terms of each coordinate of a block, T for none.
        places: Place of each coordinate in each block, M for none.
        owners: Place of the coordinate that touches each term, M for none.
        singles: Coordinates that move by themselves.
    """

    cardinality: Int[Array, " D"]
    coordinates: Int[Array, "B M"]
    elements: Int[Array, "B M E"]
    places: Int[Array, "B D"]
    owners: Int[Array, "B T"]
    singles: Int[Array, " S"]


def table(blocks: Blocks, cardinality: Any, num_terms: int) -> Table:
    """Return blocks as arrays.

    Args:
        blocks: The blocks.
        cardinality: Number of values of each coordinate.
        num_terms: Number T of terms.
    """
    arrays = (cardinality, blocks.coordinates, blocks.elements, blocks.places(len(cardinality)),
              blocks.owners(num_terms), blocks.singles)  # fmt: skip
    return Table(*(jnp.asarray(array, jnp.int32) for array in arrays))


def init(position: Int[Array, "*batch D"], terms: Terms) -> GibbsState:
    """Return the state of chains at given coordinates.

    Args:
        position: Coordinates of each chain.
        terms: Terms of the log density, over the batch.
    """
    return GibbsState(position, terms(position))


def step(
    key: Array,
    state: GibbsState,
    terms: Terms,
    table: Table,
    *,
    num_values: int,
    scan: str = "systematic",
    check: Any = True,
) -> tuple[GibbsState, GibbsInfo]:
    """Draw every discrete coordinate once from its full conditional.

    Args:
        key: Random key.
        state: State of all chains.
        terms: Terms of the log density, over the batch.
        table: The blocks, as `table` lays them out.
        num_values: Most values K of a coordinate.
        scan: `"systematic"`, `"reversed"` for the opposite order, which makes the reversal of a
            systematic sweep, or `"random"` for a new order of the blocks.
        check: Whether to compute the discrepancy; it may be traced.

    Returns:
        The new state, and what is known of the sweep.

    Cost:
        K - 1 densities of the batch for each block, and one more to check.

    Example:
        >>> from deepgen_ppl.blocks import singly
        >>> def terms(x):  # two spins that like each other
        ...     return jnp.where(x[..., :1] == x[..., 1:], 1.0, 0.0)
        >>> blocks = table(singly(2), [2, 2], 1)
        >>> state = init(jnp.zeros((500, 2), int), terms)
        >>> for i in range(3):
        ...     state, info = step(random.key(i), state, terms, blocks, num_values=2)
        >>> bool(abs(state.terms.mean() - jnp.e / (1 + jnp.e)) < 0.1)
        True
    """
    keys = random.split(key, 3)
    begun, batch, dtype = state.position, state.terms.shape[:-1], state.terms.dtype

    def block(state: GibbsState, given: tuple[Array, Array]) -> tuple[GibbsState, None]:
        index, noise = given
        return _block(noise, state, terms, table, index, num_values), None

    def single(state: GibbsState, given: tuple[Array, Array]) -> tuple[GibbsState, None]:
        index, noise = given
        return _single(noise, state, terms, table, table.singles[index], num_values), None

    parts = [(0, block, len(table.places), table.elements.shape[1])]
    parts.append((1, single, len(table.singles), 1))
    for part, move, size, width in parts[:: -1 if scan == "reversed" else 1]:
        if size:
            order = jnp.arange(size)[:: -1 if scan == "reversed" else 1]
            if scan == "random":
                order = random.permutation(random.fold_in(keys[2], part), order)
            noise = random.gumbel(keys[part], (size, num_values, *batch, width), dtype)
            state, _ = lax.scan(move, state, (order, noise))
    position, put_together = state
    whole = lax.cond(check, terms, lambda _: put_together, position)
    same = (whole == put_together) | (jnp.isnan(whole) & jnp.isnan(put_together))
    error = jnp.where(same, 0.0, jnp.abs(whole - put_together) / (1.0 + jnp.abs(whole)))
    error = jnp.where(jnp.isnan(error), jnp.inf, error).max(-1)
    changed = jnp.mean(position != begun, -1)
    info = GibbsInfo(jnp.ones_like(changed), changed.astype(error.dtype), error)
    return GibbsState(position, whole), info


def conditionals(
    state: GibbsState, terms: Terms, table: Table, *, num_values: int
) -> Float[Array, "*batch D K"]:
    r"""Return what each value of each coordinate would add to the log density.

    \[ d_{ik} = \log p(x_i \to k, x_{-i}) - \log p(x), \]

    -inf for numbers that a coordinate does not have.

    Args:
        state: State of all chains.
        terms: Terms of the log density, over the batch.
        table: The blocks.
        num_values: Most values K of a coordinate.

    Cost:
        K - 1 densities of the batch for each block.
    """
    position, now = state

    def gains(moved: Array) -> Array:
        gain = _tried(position, now, terms, moved, table, num_values) - now
        return jnp.where(jnp.isnan(gain), -jnp.inf, gain)

    def block(found: Array, index: Array) -> tuple[Array, None]:
        place = table.places[index]
        moved = place < table.elements.shape[1]
        scores = _wider(_scores(gains(moved), table.elements[index]))[..., place]
        return jnp.where(moved, scores, found), None

    def single(found: Array, coordinate: Array) -> tuple[Array, None]:
        moved = jnp.arange(position.shape[-1]) == coordinate
        return jnp.where(moved, gains(moved).sum(-1)[..., None], found), None

    by_shift = jnp.zeros((num_values, *position.shape), now.dtype)
    if len(table.places):
        by_shift, _ = lax.scan(block, by_shift, jnp.arange(len(table.places)))
    if len(table.singles):
        by_shift, _ = lax.scan(single, by_shift, table.singles)
    numbers = jnp.arange(num_values).reshape(-1, *([1] * position.ndim))
    found = jnp.take_along_axis(by_shift, (numbers - position) % table.cardinality, 0)
    found = jnp.where(numbers < table.cardinality, found, -jnp.inf)
    return jnp.moveaxis(found, 0, -1)


def _block(
    noise: Array,
    state: GibbsState,
    terms: Terms,
    table: Table,
    index: Array,
    num_values: int,
) -> GibbsState:
    """Draw the coordinates of one block, each from the terms that it touches."""
    place = table.places[index]
    moved = place < table.elements.shape[1]
    tried = _tried(*state, terms, moved, table, num_values)
    scores = _scores(tried, table.elements[index])
    cardinality = _wider(table.cardinality, 1)[table.coordinates[index]]
    shift = _wider(_drawn(noise, scores, cardinality))
    after = jnp.take_along_axis(tried, shift[..., table.owners[index]][None], 0)[0]
    return GibbsState((state.position + shift[..., place]) % table.cardinality, after)


def _single(
    noise: Array, state: GibbsState, terms: Terms, table: Table, coordinate: Array, num_values: int
) -> GibbsState:
    """Draw one coordinate from the whole density."""
    moved = jnp.arange(state.position.shape[-1]) == coordinate
    tried = _tried(*state, terms, moved, table, num_values)
    shift = _drawn(noise, tried.sum(-1)[..., None], table.cardinality[coordinate][None])
    after = jnp.take_along_axis(tried, shift[None], 0)[0]
    position = jnp.where(moved, state.position + shift, state.position) % table.cardinality
    return GibbsState(position, after)


def _tried(
    position: Array, now: Array, terms: Terms, moved: Array, table: Table, num_values: int
) -> Float[Array, "K *batch T"]:
    """Return the terms with some coordinates moved on by 0, 1, ... K - 1 values, round about."""
    shifts = jnp.arange(1, num_values).reshape(-1, *([1] * position.ndim))
    moving = moved & (shifts < table.cardinality)
    others = jnp.where(moving, position + shifts, position) % table.cardinality
    return jnp.concatenate([now[None], terms(others)])


def _scores(tried: Float[Array, "K *batch T"], elements: Int[Array, "M E"]) -> Array:
    """Sum the terms of each coordinate of a block."""
    return _wider(tried)[..., elements].sum(-1)


def _drawn(noise: Array, scores: Float[Array, "K *batch n"], cardinality: Array) -> Array:
    """Draw how far each coordinate moves on, in proportion to the exponentials of its scores."""
    shifts = jnp.arange(len(scores)).reshape(-1, *([1] * (scores.ndim - 1)))
    scores = jnp.where((shifts < cardinality) & ~jnp.isnan(scores), scores, -jnp.inf)
    return jnp.argmax(scores + noise, axis=0)


def _wider(array: Array, last: int = 0) -> Array:
    """Return an array with one more number at the end of its last axis, for what is nowhere."""
    widths = [(0, 0)] * (array.ndim - 1) + [(0, 1)]
    return jnp.pad(array, widths, constant_values=last)
