"""Climbing temperatures: the chains of a path, their pilot run and their moves, compiled once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float

from deepgen_ppl.annealing import (
    Moves,
    Schedule,
    next_step_size,
    next_temperature,
    padded,
    systematic,
)
from deepgen_ppl.evidence_checks import refuse_start
from deepgen_ppl.numpyro.compilation import build_of, compiled
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.kernels import hmc
from deepgen_ppl.numpyro.path import Path
from deepgen_ppl.posterior import Posterior

_CHUNK_MOVES = 50
_CHUNK_NUMBERS = 1 << 24
"""Numbers (of 4 bytes) that the intermediate values of one chunk of rows may take, roughly."""
_JITTER, _GOLDEN = 0.25, 0.6180339887
_PILOT_CHAINS, _PILOT_FRACTION, _PILOT_MOVES, _FIRST_MOVES = (64, 256), 0.8, 3, 15
_MOST_STAGES = 1000


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
    """

    path: Path
    num_leapfrogs: int
    index: Array | None = None
    tell: Callable[[int], Any] = lambda count: None
    gradients: int = field(default=0, init=False)
    compile_seconds: float = field(default=0.0, init=False)
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
        self, key: Array, chains: Chains, moves: Moves, first: int = 0
    ) -> tuple[Chains, np.ndarray]:
        """Make moves, in calls of one compiled function.

        Args:
            key: Random key.
            chains: The chains.
            moves: The moves.
            first: Number of the first of them, by which trajectories differ in length.

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
            chains, acceptance = self._call(
                "advance", self._advance, chains, arrays, random.fold_in(key, start), *counts
            )
            parts.append(np.asarray(acceptance)[:count])
            self.tell(count)
        each = (self.num_leapfrogs + 1) * int(np.prod(chains.log_weights.shape))
        self.gradients += total * each
        return chains, np.concatenate(parts)

    def _advance(
        self, params: Any, inputs: Inputs, index: Any, chains: Chains, moves: Any,
        key: Array, first: Array, count: Array, num_leapfrogs: Array,
    ) -> tuple[Chains, Array]:  # fmt: skip
        path = self.path.at(params, inputs, index)

        def move(i: Array, at: tuple[Chains, Array]) -> tuple[Chains, Array]:
            (z, log_weights, lost), acceptance = at
            beta, increment, size, scale = (part[i] for part in moves)
            value_and_grad = path.tempered(beta)
            (energy, difference), gradient = value_and_grad(z)
            # Compensated summation: a thousand small numbers are added to a large one.
            added = jnp.where(increment > 0.0, increment * difference, 0.0) - lost
            total = log_weights + added
            lost = jnp.where(jnp.isfinite(total), (total - log_weights) - added, 0.0)

            def scaled(v: Array) -> tuple[Array, Array]:
                (energy, _), gradient = value_and_grad(v * scale)
                return energy, gradient * scale

            # Lengths that differ from move to move, so that no orbit closes on itself.
            spread = 2.0 * jnp.mod((first + i).astype(z.dtype) * _GOLDEN, 1.0) - 1.0
            state = hmc.HMCState(z / scale, energy, gradient * scale)
            state, info = hmc.step(
                random.fold_in(key, i),
                state,
                scaled,
                step_size=size * (1.0 + _JITTER * spread),
                num_steps=num_leapfrogs,
            )
            z = jnp.where(info.accepted[..., None], state.position * scale, z)
            rate = jnp.mean(info.acceptance, axis=0)
            return Chains(z, total, lost), acceptance.at[i].set(rate)

        shape = (_CHUNK_MOVES, *chains.log_weights.shape[1:])
        return lax.fori_loop(0, count, move, (chains, jnp.zeros(shape, chains.position.dtype)))

    def _call(self, name: str, fn: Callable, *args: Any) -> Any:
        path = self.path
        everything = (path.params, path.inputs, self.index, *args)
        known = (name, *(leaf.shape for leaf in jax.tree.leaves(args)))
        if known not in self._runs:
            build = build_of(path.pair, path.rows)
            once = name != "advance"
            self._runs[known] = compiled(build, f"climb {name}", fn, *everything, once=once)
            self.compile_seconds += build.seconds
        return self._runs[known](*everything)


def pilot(
    climb: Climb,
    key: Array,
    *,
    num_chains: int,
    fraction: float = _PILOT_FRACTION,
) -> Schedule:
    """Find temperatures, step sizes and scales on chains that climb and are resampled on the way.

    What follows is run at what was found, with other random numbers, so that its estimates are as
    unbiased as if all had been chosen beforehand.

    Args:
        climb: The moves.
        key: Random key.
        num_chains: Number of chains that will follow; the pilot has as many, from 64 to 256.
        fraction: Effective fraction that each step in temperature keeps.

    Raises:
        ValueError: The joint density is nowhere finite, or NaN, at draws of the reference.
    """
    began, told = random.split(key)
    num_chains = int(np.clip(num_chains, *_PILOT_CHAINS))
    climb.tell, tell = lambda count: None, climb.tell
    z = np.asarray(climb.begin(began, num_chains).position)
    beta, sizes = np.zeros(z.shape[1:-1]), np.full(z.shape[1:-1], 0.5 / climb.num_leapfrogs)
    rng = np.random.default_rng(np.asarray(random.key_data(told), np.uint32))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    number = 0
    for stage in range(_MOST_STAGES):
        differences = np.subtract(*climb.log_densities(jnp.asarray(z))[::-1])
        _check(climb, z, differences, stage)
        last = stage == _MOST_STAGES - 1
        above = np.ones_like(beta) if last else next_temperature(differences, beta, fraction)
        weights = _normalise((above - beta) * np.where(above > beta, differences, 0.0))
        scale = _spread(z, weights)
        z = np.take_along_axis(z, systematic(weights, rng.random(beta.shape))[..., None], axis=0)
        for _ in range(_PILOT_MOVES if stage else _FIRST_MOVES):
            moves = Moves(*(part[None] for part in (above, np.zeros_like(above), sizes, scale)))
            at = climb.at(jnp.asarray(z))
            chains, acceptance = climb.run(random.fold_in(told, number), at, moves, number)
            z, number = np.asarray(chains.position), number + 1
            sizes = next_step_size(sizes, acceptance[0], climb.num_leapfrogs)
        found.append((above, sizes, scale))
        beta = above
        if (beta >= 1.0).all():
            break
    climb.tell = tell
    betas, sizes, scales = (np.stack(part) for part in zip(*found, strict=True))
    return Schedule(
        np.concatenate([np.zeros_like(betas[:1]), betas]),
        np.concatenate([sizes[:1], sizes]),
        np.concatenate([scales[:1], scales]),
    )


def parts(path: Path, num_chains: int, batch_size: int | None) -> Iterator[tuple[Any, int]]:
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
    numbers = 16 * sum(int(np.prod(site.shape)) for site in sites) // size + 1
    length = batch_size or int(np.clip(_CHUNK_NUMBERS // (numbers * num_chains), 1, size))
    if length >= size:
        yield None, size
        return
    for start in range(0, size, length):
        rows = np.minimum(np.arange(start, start + length), size - 1)
        yield jnp.asarray(rows), min(length, size - start)


def join(path: Path, pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the sites of chunks of rows, `(K, *shape)` each, as those of all rows."""
    if path.rows is None:
        return pieces[0]
    axis = {n: 1 + path.pair.model.sites[n].plates.index(path.rows) for n in pieces[0]}
    return {n: np.concatenate([p[n] for p in pieces], axis=axis[n]) for n in pieces[0]}


def cut(path: Path, sites: Mapping[str, np.ndarray], used: int) -> dict[str, np.ndarray]:
    """Return the sites of the first rows of a chunk, `(K, *shape)` each."""
    if path.rows is None:
        return dict(sites)
    axis = {n: 1 + path.pair.model.sites[n].plates.index(path.rows) for n in sites}
    return {n: np.take(v, np.arange(used), axis=axis[n]) for n, v in sites.items()}


def as_posterior(path: Path, data: tuple, draws: Mapping[str, np.ndarray], method: str,
                 began: float, **fields: Any) -> Posterior:  # fmt: skip
    """Return draws `(K, *shape)` as a posterior of one chain with its evaluators."""
    from deepgen_ppl.numpyro.infer.evaluate import fields as about

    model = path.pair.model
    row_axis = {} if path.rows is None else {n: model.sites[n].plates.index(path.rows)
                                             for n in draws}  # fmt: skip
    attrs = {"sampling_time": time.perf_counter() - began, **fields.pop("attrs", {})}
    return Posterior(
        {name: value[None] for name, value in draws.items()},
        method=method,
        row_dim=path.rows,
        row_axis=row_axis,
        independent=True,
        attrs=attrs,
        **about(model, path.params, data),
        **fields,
    )


def _check(climb: Climb, z: np.ndarray, differences: np.ndarray, stage: int) -> None:
    bad = np.isnan(differences) | (differences == np.inf)
    if not bad.any() and stage == 0:
        bad = np.broadcast_to(~np.isfinite(differences).any(axis=0), bad.shape)
    if not bad.any():
        return
    worst = int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
    path = climb.path.at(climb.path.params, climb.path.inputs, climb.index)
    rows = np.flatnonzero(bad[worst]) if path.rows is not None else np.array([], int)
    rows = rows if climb.index is None else np.asarray(climb.index)[rows]
    value = float(np.nan if np.isnan(differences).any() else -np.inf)
    for name, log_prob in path.site_log_probs(jnp.asarray(z[worst])).items():
        odd = ~np.isfinite(np.asarray(log_prob))
        if odd.any():
            refuse_start(name, float(np.asarray(log_prob)[odd].flat[0]), rows.tolist())
    refuse_start(None, value, rows.tolist())


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


def _normalise(log_weights: np.ndarray) -> np.ndarray:
    largest = log_weights.max(axis=0)
    weights = np.exp(log_weights - np.where(np.isfinite(largest), largest, 0.0))
    return weights / weights.sum(axis=0)


def _spread(z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted standard deviation of each coordinate."""
    z, weights = np.asarray(z, np.float64), weights[..., None]
    mean = (weights * z).sum(axis=0)
    return np.sqrt((weights * (z - mean) ** 2).sum(axis=0)) + 1e-6
