"""Gibbs sampling of discrete coordinates on a batch of chains, in blocks that move at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepgen_ppl.blocks import Blocks
from deepgen_ppl.checks import check_positive
from deepgen_ppl.discrete import check_scan

__all__ = ["Gibbs", "GibbsInfo", "GibbsState", "init", "step"]

Terms = Callable[[Int[Tensor, "*batch D"]], Float[Tensor, "*batch T"]]


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

    position: Int[Tensor, "*batch D"]
    terms: Float[Tensor, "*batch T"]


class GibbsInfo(NamedTuple):
    """What diagnostics need.

    Attributes:
        acceptance: Share of the moves that were accepted: 1, as all are.
        changed: Share of the coordinates that have another value after the sweep.
        discrepancy: Largest difference between the terms as they were put together in the sweep and
            as they are, relative to 1 + their size; 0 where it was not asked for. Above rounding,
            the blocks are wrong.
    """

    acceptance: Float[Tensor, "*batch"]
    changed: Float[Tensor, "*batch"]
    discrepancy: Float[Tensor, "*batch"]


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

    cardinality: Int[Tensor, " D"]
    coordinates: Int[Tensor, "B M"]
    elements: Int[Tensor, "B M E"]
    places: Int[Tensor, "B D"]
    owners: Int[Tensor, "B T"]
    singles: Int[Tensor, " S"]


def table(blocks: Blocks, cardinality: Any, num_terms: int) -> Table:
    """Return blocks as arrays.

    Args:
        blocks: The blocks.
        cardinality: Number of values of each coordinate.
        num_terms: Number T of terms.
    """
    arrays = (cardinality, blocks.coordinates, blocks.elements, blocks.places(len(cardinality)),
              blocks.owners(num_terms), blocks.singles)  # fmt: skip
    return Table(*(torch.as_tensor(np.array(array), dtype=torch.int64) for array in arrays))


def init(position: Int[Tensor, "*batch D"], terms: Terms) -> GibbsState:
    """Return the state of chains at given coordinates.

    Args:
        position: Coordinates of each chain.
        terms: Terms of the log density, over the batch.
    """
    return GibbsState(position, terms(position))


def step(
    generator: torch.Generator,
    state: GibbsState,
    terms: Terms,
    table: Table,
    *,
    num_values: int,
    scan: str = "systematic",
    check: bool = True,
    moves: Moves | None = None,
) -> tuple[GibbsState, GibbsInfo]:
    """Draw every discrete coordinate once from its full conditional.

    Args:
        generator: Source of the random numbers.
        state: State of all chains.
        terms: Terms of the log density, over the batch.
        table: The blocks, as `table` lays them out.
        num_values: Most values K of a coordinate.
        scan: `"systematic"`, `"reversed"` for the opposite order, which makes the reversal of a
            systematic sweep, or `"random"` for a new order of the blocks.
        check: Whether to compute the discrepancy.
        moves: The updates of a block and of a single coordinate, where they were traced before.

    Returns:
        The new state, and what is known of the sweep.

    Cost:
        K - 1 densities of the batch for each block, and one more to check.

    Example:
        >>> from deepgen_ppl.blocks import singly
        >>> def terms(x):  # two spins that like each other
        ...     return torch.where(x[..., :1] == x[..., 1:], 1.0, 0.0)
        >>> blocks, generator = table(singly(2), [2, 2], 1), torch.Generator().manual_seed(0)
        >>> state = init(torch.zeros(500, 2, dtype=torch.int64), terms)
        >>> for i in range(3):
        ...     state, info = step(generator, state, terms, blocks, num_values=2)
        >>> bool(abs(state.terms.mean() - 2.7183 / 3.7183) < 0.1)
        True
    """
    begun = state.position
    batch, like = begun.shape[:-1], state.terms
    moves = moves or Moves.of(terms, table.cardinality, num_values)

    def order(size: int) -> Sequence[int]:
        if scan == "random":
            numbers = torch.randperm(size, generator=generator, device=generator.device)
            return numbers.tolist()
        return range(size)[:: -1 if scan == "reversed" else 1]

    def noise(width: int) -> Tensor:
        uniform = torch.rand(num_values, *batch, width, generator=generator, dtype=like.dtype,
                             device=like.device)  # fmt: skip
        return -torch.log(-torch.log1p(-uniform))

    def blocks(state: GibbsState) -> GibbsState:
        for index in order(len(table.places)):
            rows = (part[index] for part in
                    (table.coordinates, table.elements, table.places, table.owners))  # fmt: skip
            state = GibbsState(*moves.block(*state, noise(table.coordinates.shape[1]), *rows))
        return state

    def singles(state: GibbsState) -> GibbsState:
        for index in order(len(table.singles)):
            state = GibbsState(*moves.single(*state, noise(1), table.singles[index : index + 1]))
        return state

    for part in (singles, blocks) if scan == "reversed" else (blocks, singles):
        state = part(state)
    position, put_together = state
    whole = terms(position) if check else put_together
    error = (whole - put_together).abs() / (1.0 + whole.abs())
    same = (whole == put_together) | (whole.isnan() & put_together.isnan())
    error = torch.where(same, 0.0, error.nan_to_num(nan=torch.inf, posinf=torch.inf)).amax(-1)
    changed = (position != begun).to(like.dtype).mean(-1)
    return GibbsState(position, whole), GibbsInfo(torch.ones_like(changed), changed, error)


class Moves(NamedTuple):
    """The two updates that a sweep is made of, functions of tensors alone.

    Attributes:
        block: `(position, terms, noise, coordinates, elements, places, owners)`, of one block, to
            the new position and terms; the noise is of Gumbel's law, `(K, *batch, M)`.
        single: `(position, terms, noise, coordinate)`, of one coordinate `(1,)`; the noise
            `(K, *batch, 1)`.
    """

    block: Callable[..., tuple[Tensor, Tensor]]
    single: Callable[..., tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, terms: Callable[..., Tensor], cardinality: Tensor, num_values: int) -> Moves:
        """Return the updates of a density.

        Args:
            terms: `(position, *more)` to the terms; what the updates get further, it gets too.
            cardinality: Number of values of each coordinate.
            num_values: Most values K of a coordinate.
        """
        wide = wider(cardinality, 1)

        def block(
            position: Tensor, now: Tensor, noise: Tensor, coordinates: Tensor, elements: Tensor,
            places: Tensor, owners: Tensor, *more: Tensor,
        ) -> tuple[Tensor, Tensor]:  # fmt: skip
            moved = places < len(coordinates)
            tried = _tried(position, now, terms, moved, cardinality, num_values, *more)
            scores = wider(tried)[..., elements].sum(-1)
            shift = wider(_drawn(noise, scores, wide[coordinates]))
            after = tried.gather(0, shift[..., owners].unsqueeze(0))[0]
            return (position + shift[..., places]) % cardinality, after

        def single(
            position: Tensor, now: Tensor, noise: Tensor, coordinate: Tensor, *more: Tensor
        ) -> tuple[Tensor, Tensor]:
            moved = torch.arange(position.shape[-1], device=position.device) == coordinate
            tried = _tried(position, now, terms, moved, cardinality, num_values, *more)
            scores = tried.sum(-1, keepdim=True)
            shift = _drawn(noise, scores, cardinality[coordinate])
            after = tried.gather(0, shift.expand(now.shape).unsqueeze(0))[0]
            return (position + shift * moved) % cardinality, after

        return cls(block, single)


def conditionals(
    state: GibbsState, terms: Callable[..., Tensor], table: Table, *more: Tensor, num_values: int
) -> Float[Tensor, "*batch D K"]:
    r"""Return what each value of each coordinate would add to the log density.

    \[ d_{ik} = \log p(x_i \to k, x_{-i}) - \log p(x), \]

    -inf for numbers that a coordinate does not have.

    Args:
        state: State of all chains.
        terms: Terms of the log density, over the batch.
        table: The blocks.
        *more: Further arguments of `terms`.
        num_values: Most values K of a coordinate.

    Cost:
        K - 1 densities of the batch for each block.
    """
    position, now = state
    cardinality = table.cardinality

    def gains(moved: Tensor) -> Tensor:
        tried = _tried(position, now, terms, moved, cardinality, num_values, *more)
        gain = tried - now
        return torch.where(gain.isnan(), -torch.inf, gain)

    by_shift = now.new_zeros((num_values, *position.shape))
    for places, elements in zip(table.places, table.elements, strict=True):
        moved = places < elements.shape[0]
        scores = wider(wider(gains(moved))[..., elements].sum(-1))[..., places]
        by_shift = torch.where(moved, scores, by_shift)
    for coordinate in table.singles:
        moved = torch.arange(position.shape[-1], device=position.device) == coordinate
        by_shift = torch.where(moved, gains(moved).sum(-1, keepdim=True), by_shift)
    numbers = _along(torch.arange(num_values, device=position.device), position)
    found = by_shift.gather(0, (numbers - position) % cardinality)
    found = torch.where(numbers < cardinality, found, -torch.inf)
    return found.movedim(0, -1)


def wider(values: Tensor, last: float = 0) -> Tensor:
    """Return a tensor with one more number at the end of its last axis, for what is nowhere."""
    return torch.cat([values, values.new_full((*values.shape[:-1], 1), last)], -1)


def _tried(
    position: Tensor,
    now: Tensor,
    terms: Callable[..., Tensor],
    moved: Bool[Tensor, " D"],
    cardinality: Tensor,
    num_values: int,
    *more: Tensor,
) -> Float[Tensor, "K *batch T"]:
    """Return the terms with some coordinates moved on by 0, 1, ... K - 1 values, round about."""
    shifts = _along(torch.arange(1, num_values, device=position.device), position)
    moving = moved & (shifts < cardinality)
    others = torch.where(moving, position + shifts, position) % cardinality
    return torch.cat([now[None], terms(others, *more)])


def _drawn(noise: Tensor, scores: Float[Tensor, "K *batch n"], cardinality: Tensor) -> Tensor:
    """Draw how far each coordinate moves on, in proportion to the exponentials of its scores."""
    shifts = _along(torch.arange(len(scores), device=scores.device), scores[0])
    allowed = (shifts < cardinality) & ~scores.isnan()
    return (torch.where(allowed, scores, -torch.inf) + noise).argmax(0)


def _along(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.reshape(-1, *([1] * like.dim()))
