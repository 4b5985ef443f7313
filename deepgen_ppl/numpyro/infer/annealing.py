"""Climbing temperatures: the chains of a path, their pilot run and their moves, compiled once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float

from deepgen_ppl import discrete as discrete_
from deepgen_ppl.annealing import Moves, padded
from deepgen_ppl.numpyro.compilation import build_of, compiled
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.kernels import gibbs, hmc
from deepgen_ppl.numpyro.mixed import MixedPath, find_table
from deepgen_ppl.numpyro.path import Path
from deepgen_ppl.posterior import Posterior

_CHUNK_MOVES = 50
_CHUNK_NUMBERS = 1 << 24
"""Numbers (of 4 bytes) that the intermediate values of one chunk of rows may take, roughly."""
_JITTER, _GOLDEN = 0.25, 0.6180339887


class Chains(NamedTuple):
    """Chains on a path, all on the device.

    Attributes:
        position: Where they are, `(K, *rows, D)`.
        log_weights: Their log weights, `(K, *rows)`.
        lost: What rounding has cost those sums so far.
    """

    position: Array
    log_weights: Array
    lost: Array


@dataclass
class Climb:
    """The moves of chains on a path, at some of its rows where it is by rows.

    Attributes:
        path: The path.
        num_leapfrogs: Leapfrog steps of a transition.
        index: The rows, None for all or where the path is not by rows.
        tell: Told the number of moves after each call.
        gradients: Gradients taken so far, of one row each where the path is by rows.
        compile_seconds: Time of tracing and compiling.
        table: The blocks in which discrete coordinates move, None where there are none.
        discrepancy: Largest relative difference of terms put together in a sweep from the whole.
    """

    path: Path | MixedPath
    num_leapfrogs: int
    index: Array | None = None
    tell: Callable[[int], Any] = lambda count: None
    table: gibbs.Table | None = None
    gradients: int = field(default=0, init=False)
    compile_seconds: float = field(default=0.0, init=False)
    discrepancy: float = field(default=0.0, init=False)
    _runs: dict[Any, Callable] = field(default_factory=dict, init=False, repr=False)

    def begin(self, key: Array, num_chains: int) -> Chains:
        """Return chains at exact draws of the reference.

        Args:
            key: Random key.
            num_chains: Their number K.
        """

        def draw(params: Any, inputs: Inputs, index: Any, keys: Array) -> Array:
            path = self.path.at(params, inputs, index)
            return jax.vmap(lambda key: path.sample(key, 1)[0])(keys)

        return self.at(self._call("draw", draw, random.split(key, num_chains)))

    def at(self, position: Float[Array, "K *rows D"]) -> Chains:
        """Return chains of equal weight at some positions."""
        zero = jnp.zeros(position.shape[:-1], position.dtype)
        return Chains(jnp.asarray(position), zero, zero)

    def resample(
        self, key: Array, chains: Chains, num_islands: int
    ) -> tuple[Chains, Float[np.ndarray, "G ..."]]:
        """Draw the chains of each island again in proportion to their weights, systematically.

        Args:
            key: Random key.
            chains: The chains, those of an island next to each other.
            num_islands: Number G of islands.

        Returns:
            Chains of equal weight, and the log of the mean weight of each island.
        """
        islands = jnp.zeros(num_islands, bool)  # its shape is what compiled code knows
        return self._call("resample", _resample, key, chains, islands)

    def log_densities(self, position: Float[Array, "K *rows D"]) -> tuple[np.ndarray, np.ndarray]:
        """Return the log densities of reference and target at positions."""

        def both(params: Any, inputs: Inputs, index: Any, z: Array) -> tuple[Array, Array]:
            return self.path.at(params, inputs, index).log_densities(z)

        reference, target = self._call("densities", both, position)
        return np.asarray(reference), np.asarray(target)

    def constrain(self, position: Float[Array, "K *rows D"]) -> dict[str, np.ndarray]:
        """Return the values of the model's sites at positions."""

        def values(params: Any, inputs: Inputs, index: Any, z: Array) -> dict[str, Array]:
            return self.path.at(params, inputs, index).constrain(z)

        return jax.device_get(self._call("constrain", values, position))

    def run(
        self, key: Array, chains: Chains, moves: Moves, first: int = 0, backwards: bool = False
    ) -> tuple[Chains, np.ndarray]:
        """Make moves, in calls of one compiled function.

        Trajectories of the continuous coordinates come first and a sweep over the discrete ones
        after them, or the other way round: then a move is the reversal of what it is else.

        Args:
            key: Random key.
            chains: The chains.
            moves: The moves.
            first: Number of the first of them, by which trajectories differ in length.
            backwards: Whether moves are reversed.

        Returns:
            The chains, and the mean acceptance probability of each move, `(T, *rows)`.
        """
        total, parts = len(moves.temperatures), []
        for start in range(0, total, _CHUNK_MOVES):
            count = min(_CHUNK_MOVES, total - start)
            part = padded(moves, start, _CHUNK_MOVES)
            counts = map(np.int32, (first + start, count, self.num_leapfrogs))
            dtype = chains.position.dtype
            arrays = tuple(jnp.asarray(value, dtype) for value in part)
            mixed = self.table is not None
            name = "advance back" if mixed and backwards else "advance"
            advance = partial(self._advance, backwards=mixed and backwards)
            rest = (chains, arrays, random.fold_in(key, start), *counts)
            chains, acceptance, worst = self._call(name, advance, self.table, *rest)
            self.discrepancy = max(self.discrepancy, float(worst))
            parts.append(np.asarray(acceptance)[:count])
            self.tell(count)
        num = 1 + self.num_leapfrogs * bool(self.path.num_free)
        num += bool(self.path.num_free) and self.table is not None and backwards
        each = num * int(np.prod(chains.log_weights.shape))
        self.gradients += total * each
        return chains, np.concatenate(parts)

    def _advance(
        self, params: Any, inputs: Inputs, index: Any, table: Any, chains: Chains, moves: Any,
        key: Array, first: Array, count: Array, num_leapfrogs: Array, backwards: bool,
    ) -> tuple[Chains, Array, Array]:  # fmt: skip
        path, free = self.path.at(params, inputs, index), self.path.num_free

        def slide(key: Array, z: Array, at: Any, size: Array, scale: Array, spread: Array) -> Any:
            """Move the continuous coordinates by one trajectory."""
            ((energy, _), gradient), value_and_grad = at
            if not free:
                return z, jnp.ones(z.shape[1:-1], z.dtype)
            scale, rest = scale[..., :free], z[..., free:]

            def scaled(v: Array) -> tuple[Array, Array]:
                whole = jnp.concatenate([v * scale, rest], -1) if rest.shape[-1] else v * scale
                (energy, _), gradient = value_and_grad(whole)
                return energy, gradient[..., :free] * scale

            # Lengths that differ from move to move, so that no orbit closes on itself.
            size = size * (1.0 + _JITTER * spread)
            state = hmc.HMCState(z[..., :free] / scale, energy, gradient[..., :free] * scale)
            options: dict[str, Any] = {"step_size": size, "num_steps": num_leapfrogs}
            state, info = hmc.step(key, state, scaled, **options)
            there = jnp.concatenate([state.position * scale, rest], -1)
            z = jnp.where(info.accepted[..., None], there, z)
            return z, jnp.mean(info.acceptance, axis=0)

        def move(i: Array, at: Any) -> Any:
            (z, log_weights, lost), acceptance, worst = at
            beta, increment, size, scale = (part[i] for part in moves)
            value_and_grad = path.tempered(beta)
            here = value_and_grad(z)
            # Compensated summation: a thousand small numbers are added to a large one.
            added = jnp.where(increment > 0.0, increment * here[0][1], 0.0) - lost
            total = log_weights + added
            lost = jnp.where(jnp.isfinite(total), (total - log_weights) - added, 0.0)
            own = random.fold_in(key, i)
            spread = 2.0 * jnp.mod((first + i).astype(z.dtype) * _GOLDEN, 1.0) - 1.0

            def sweep(z: Array) -> tuple[Array, Array]:
                assert isinstance(path, MixedPath)
                check = (first + i) % discrete_.CHECKED_EVERY == 0
                options: dict[str, Any] = {"backwards": backwards, "check": check}
                return path.sweep(random.fold_in(own, 1), z, beta, table, **options)

            error = jnp.zeros((), z.dtype)
            if table is not None and backwards:
                z, error = sweep(z)
                here = value_and_grad(z)
            z, rate = slide(own, z, (here, value_and_grad), size, scale, spread)
            if table is not None and not backwards:
                z, error = sweep(z)
            found = (Chains(z, total, lost), acceptance.at[i].set(rate))
            return *found, jnp.maximum(worst, error)

        shape = (_CHUNK_MOVES, *chains.log_weights.shape[1:])
        dtype = chains.position.dtype
        start = (chains, jnp.zeros(shape, dtype), jnp.zeros((), dtype))
        return lax.fori_loop(0, count, move, start)

    def _call(self, name: str, fn: Callable, *args: Any) -> Any:
        path = self.path
        everything = (path.params, path.inputs, self.index, *args)
        known = (name, *(leaf.shape for leaf in jax.tree.leaves(args)))
        if known not in self._runs:
            build = build_of(path.pair, *path.static[1:])
            once = not name.startswith("advance")
            self._runs[known] = compiled(build, f"climb {name}", fn, *everything, once=once)
            self.compile_seconds += build.seconds
        return self._runs[known](*everything)


def with_blocks(
    path: Path | MixedPath, key: Array, work: Callable[[gibbs.Table | None], Any]
) -> Any:
    """Do work whose discrete coordinates move in blocks, again one by one where these are wrong.

    Args:
        path: The path.
        key: Random key.
        work: Blocks, None where nothing is discrete, to what it leaves, with its `attrs` and its
            `discrepancy`.
    """
    if not isinstance(path, MixedPath):
        return work(None)
    table = find_table(path, key)
    found = work(table)
    if found.discrepancy > discrete_.MOST_DISCREPANCY:
        table = find_table(path, key, apart=True)
        found = work(table)
    found.attrs["num_blocks"] = len(table.places) + len(table.singles)
    return found


def parts(
    path: Path | MixedPath, num_chains: int, batch_size: int | None
) -> Iterator[tuple[Any, int]]:
    """Yield rows (None for all) a chunk at a time, all chunks of one length, and how many count.

    Args:
        path: The path.
        num_chains: Number of chains at each row.
        batch_size: Rows of a chunk; None chooses as many as fit in memory.
    """
    size = path.num_rows
    if size is None:
        yield None, 0
        return
    sites = [site for program in path.pair.programs for site in program.sites.values()]
    numbers = 16 * path.copies * sum(int(np.prod(site.shape)) for site in sites) // size + 1
    length = batch_size or int(np.clip(_CHUNK_NUMBERS // (numbers * num_chains), 1, size))
    if length >= size:
        yield None, size
        return
    for start in range(0, size, length):
        rows = np.minimum(np.arange(start, start + length), size - 1)
        yield jnp.asarray(rows), min(length, size - start)


def as_posterior(path: Path | MixedPath, data: tuple, draws: Mapping[str, np.ndarray], method: str,
                 began: float, **fields: Any) -> Posterior:  # fmt: skip
    """Return draws `(K, *shape)` as a posterior of one chain with its evaluators."""
    from deepgen_ppl.numpyro.infer.evaluate import fields as about

    model = path.pair.model
    attrs = {"sampling_time": time.perf_counter() - began, **fields.pop("attrs", {})}
    return Posterior(
        {name: value[None] for name, value in draws.items()},
        method=method,
        row_dim=path.rows,
        row_axis=path.row_axes,
        independent=True,
        attrs=attrs,
        **about(model, path.params, data),
        **fields,
    )


def _resample(
    params: Any, inputs: Inputs, index: Any, key: Array, chains: Chains, islands: Array
) -> tuple[Chains, Array]:
    groups, size = len(islands), len(chains.position) // len(islands)
    log_w = chains.log_weights.reshape(groups, size, -1)
    z = chains.position.reshape(groups, size, log_w.shape[-1], -1)
    log_total = jax.scipy.special.logsumexp(log_w, axis=1)
    uniform = random.uniform(key, log_total.shape, z.dtype)

    def one(log_w: Array, log_total: Array, first: Array) -> Array:
        cumulative = jnp.cumsum(jnp.exp(log_w - jnp.where(jnp.isfinite(log_total), log_total, 0.0)))
        points = (first + jnp.arange(size)) / size * cumulative[-1]
        return jnp.minimum(jnp.searchsorted(cumulative, points, side="right"), size - 1)

    over_rows = jax.vmap(one, in_axes=(1, 0, 0), out_axes=1)
    drawn = jax.vmap(over_rows)(log_w, log_total, uniform)
    z = jnp.take_along_axis(z, drawn[..., None], axis=1).reshape(chains.position.shape)
    zero = jnp.zeros_like(chains.log_weights)
    means = log_total.reshape(groups, *zero.shape[1:]) - jnp.log(size)
    return Chains(z, zero, zero), means
