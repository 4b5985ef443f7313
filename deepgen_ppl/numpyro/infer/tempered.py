"""The driver of parallel tempering: a ladder of chains compiled once, its warm-up and its draws."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float
from tqdm.auto import tqdm

from deepgen_ppl import checks, mixing
from deepgen_ppl import discrete as discrete_
from deepgen_ppl.numpyro.compilation import Build
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.infer.bridge import positions
from deepgen_ppl.numpyro.infer.ensemble import Record
from deepgen_ppl.numpyro.infer.vectorized import Sampled
from deepgen_ppl.numpyro.kernels import adaptation as adaptation_
from deepgen_ppl.numpyro.kernels import tempering
from deepgen_ppl.numpyro.kernels.gibbs import Gibbs, Table
from deepgen_ppl.numpyro.kernels.tempering import Ladder, ParallelTempering, Rungs
from deepgen_ppl.numpyro.mixed import MixedPath, find_table
from deepgen_ppl.numpyro.path import Path

_DENSE = 256
_CHUNK_NUMBERS = 2**22
_CHUNK_DRAWS = 256


def sample(
    kernel: ParallelTempering,
    path: Path | MixedPath,
    lengths: tuple[int, int, int],
    num_chains: int,
    *,
    init: Any = None,
    adaptation: Mapping[str, Any] | None = None,
    progress: bool = True,
    seed: int | Array = 0,
) -> Sampled:
    """Run the chains of parallel tempering.

    Args:
        kernel: Its options.
        path: The path from the prior to the posterior.
        lengths: Steps of warm-up, steps after it, and the thinning of these.
        num_chains: Number of chains at each temperature.
        init: A posterior whose draws the chains at the posterior start from.
        adaptation: What an earlier run learnt.
        progress: Whether to show a progress bar.
        seed: Seed of chains and starting points.
    """
    num_warmup, num_samples, thinning = lengths
    counts, key = (num_warmup, num_samples // thinning, thinning), as_key(seed)
    known = None
    if adaptation is not None:
        known = checks.check_ladder(adaptation, kernel.num_temperatures, path.num_free)
    ladder = Tempered(path, kernel.kernel, kernel.num_temperatures, num_chains, known)
    start = None if init is None else _given(path, init, num_chains, seed)
    with tqdm(total=num_chains * (num_warmup + num_samples), disable=not progress) as bar:
        bar.set_description("compiling")
        ladder.compile(key)
        bar.set_description("warmup")
        record = ladder.run(key, counts, start, bar)
        if ladder.discrepancy > discrete_.MOST_DISCREPANCY:
            ladder = Tempered(path, kernel.kernel, kernel.num_temperatures, num_chains, known)
            ladder.compile(key, apart=True)
            bar.reset()
            record = ladder.run(key, counts, start, bar)
    attrs = {
        "kernel": type(kernel).__name__,
        "compiled": "compiled",
        "compiled_reason": "the steps of all chains are one compiled function",
        "compile_seconds": ladder.compile_seconds,
        "sampling_time": record.seconds,
        "num_gradients": record.num_gradients,
        "tuning_steps": num_warmup,
        "temperatures": np.asarray(ladder.ladder.betas),
        "swap_acceptance": ladder.swap_rates,
    }
    seen, sites = record.positions, list(path.layout.shapes.items())
    if isinstance(path, Path) and path.warp is not None:
        sites = []  # coordinates of the guide, which are no site's
    if isinstance(path, MixedPath) and ladder.table is not None:
        attrs["num_blocks"] = len(ladder.table.places) + len(ladder.table.singles)
        parts = np.split(seen, [path.num_free], axis=-1)
        seen, sites = path.coordinates.looked_at(parts[1], parts[0], path.layout.shapes)
    resting = not path.num_free
    attrs |= mixing.gate(attrs["kernel"], seen, None, sites, resting=resting)
    return Sampled(record.draws, record.stats, attrs, record.adaptation)


def _given(
    path: Path | MixedPath, init: Any, num_chains: int, seed: int | Array
) -> Float[np.ndarray, "chain D"]:
    """Return the positions of draws of a posterior."""
    sites = path.pair.model.sites
    number = seed if isinstance(seed, int) else 0
    shapes = {name: sites[name].shape for name in path.sites}
    found = discrete_.starting_draws(init, shapes, num_chains, number)
    return positions(path, {name: value[None] for name, value in found.items()})[0]


class Tempered:
    """All chains of one run of parallel tempering.

    Args:
        path: The path from the prior to the posterior.
        kernel: Options of the kernel that moves the chains.
        num_temperatures: Number of temperatures.
        num_chains: Number of chains at each of them.
        known: What an earlier run learnt.

    Attributes:
        ladder: Temperatures and covariances as warm-up left them.
        table: The blocks in which discrete coordinates move, None where there are none.
        swap_rates: Mean acceptance of the swaps of each pair of neighbours, after warm-up.
        discrepancy: Largest relative difference of terms put together in a sweep from the whole.
    """

    def __init__(
        self,
        path: Path | MixedPath,
        kernel: Any,
        num_temperatures: int,
        num_chains: int,
        known: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.path, self.kernel, self.known = path, kernel, known
        self.moves = kernel.continuous if isinstance(kernel, Gibbs) else kernel
        self.num_temperatures, self.num_chains = num_temperatures, num_chains
        self.dtype, size = np.dtype(jnp.zeros(()).dtype), path.num_free
        self.dense = size <= _DENSE if self.moves.dense is None else self.moves.dense
        target = self.moves.target_accept_prob
        self.ladder = tempering.first(num_temperatures, size, target, self.dtype, known)
        self.table: Table | None = None
        self.swap_rates, self.discrepancy = np.zeros(num_temperatures - 1), 0.0

    def compile(self, key: Array, apart: bool = False) -> None:
        """Compile the steps and the way back to the sites, unless that was done before.

        Args:
            key: Random key of the points at which blocks are looked for.
            apart: Whether discrete coordinates move one by one.
        """
        if isinstance(self.path, MixedPath):
            self.table = find_table(self.path, random.fold_in(key, 2**31), apart)
        path, shape = self.path, (self.num_temperatures, self.num_chains, self.path.dim)
        numbers = int(np.prod(shape)) + self.num_chains * sum(
            leaf.size
            for leaf in jax.tree.leaves(jax.eval_shape(path.constrain, jnp.zeros(path.dim)))
        )
        self.chunk = int(np.clip(_CHUNK_NUMBERS // numbers, 1, _CHUNK_DRAWS))
        self.args = (path.params, path.inputs)
        static = (self.kernel, self.chunk, *path.static)
        build, count = Build(path.owner), np.int32(0)
        rungs = Rungs(np.zeros(shape, self.dtype), *[None] * 5)  # type: ignore[arg-type]
        rungs = tempering.restarted(rungs, path.num_free)
        rest = (self.table, rungs, self.ladder, random.key(0), count, count, count)
        build.add("tempering", self._advance, self.args, *rest, static=static)
        z = jax.ShapeDtypeStruct((self.chunk, *shape[1:]), self.dtype)
        build.add("tempering values", self._values, self.args, z, static=static)
        keys = random.split(random.key(0), self.num_temperatures)
        build.add("tempering start", self._start, self.args, keys, static=static, once=True)
        made = build.compile()
        self._run, self._draws = made["tempering"], made["tempering values"]
        self._begin, self.compile_seconds = made["tempering start"], build.seconds

    def run(
        self,
        key: Array,
        lengths: tuple[int, int, int],
        start: Float[np.ndarray, "chain D"] | None,
        bar: tqdm,
    ) -> Record:
        """Adapt ladder and kernel, then sample.

        Args:
            key: Random key.
            lengths: Steps of warm-up, draws of each chain, and the steps between draws.
            start: Where the chains at the posterior start, at the prior where None.
            bar: Progress bar over the steps of all chains.
        """
        began = time.perf_counter()
        num_warmup, num_draws, thinning = lengths
        start_key, key = random.split(key)
        position = self._begin(self.args, random.split(start_key, self.num_temperatures))
        if start is not None:
            position = jnp.asarray(position).at[-1].set(start)
        rungs = Rungs(position, *[None] * 5)  # type: ignore[arg-type]
        sizes = None if self.known is None else self.known["step_sizes"]
        rungs = tempering.restarted(rungs, self.path.num_free, sizes)
        ends = [int(end) for end in adaptation_.windows(num_warmup)]
        done = gradients = 0
        for end in sorted(set(ends) - {0}):
            window = []
            while done < end:
                count = min(self.chunk, end - done)
                rungs, found = self._call(key, rungs, done, count, 1)
                window.append(found["z"][:count, ..., : self.path.num_free])
                done, gradients = done + count, gradients + int(found["gradients"])
                bar.update(count * self.num_chains)
            positions = np.concatenate(window)
            if end != ends[-1] and len(positions) >= 4:
                rungs, self.ladder = tempering.close(rungs, self.ladder, positions, self.dense)
        zeros: Any = np.zeros_like(self.swap_rates, self.dtype)
        rungs = rungs._replace(swaps=zeros, tried=zeros)
        self.ladder = self.ladder._replace(learning=np.bool_(False))  # type: ignore[arg-type]
        draws, parts = [], []
        bar.set_description("sample")
        while done < num_warmup + num_draws * thinning:
            count = min(self.chunk, num_draws - (done - num_warmup) // thinning)
            rungs, found = self._call(key, rungs, done, count, thinning)
            found["z"] = found["z"][:, -1]
            values = self._draws(self.args, found["z"])
            draws.append({name: np.asarray(value)[:, :count] for name, value in values.items()})
            gradients += int(found.pop("gradients"))
            parts.append({name: value[:count] for name, value in found.items()})
            done += count * thinning
            bar.update(count * thinning * self.num_chains)
        self.swap_rates = np.asarray(rungs.swaps) / np.maximum(np.asarray(rungs.tried), 1.0)
        kept = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        stats = {n: np.swapaxes(value, 0, 1) for n, value in kept.items() if n != "z"}
        learnt = {
            "temperatures": np.asarray(self.ladder.betas),
            "step_sizes": np.exp(np.asarray(rungs.log_average)),
            "roots": np.asarray(self.ladder.roots),
        }
        seconds = time.perf_counter() - began
        joined = {name: np.concatenate([d[name] for d in draws], axis=1) for name in draws[0]}
        return Record(joined, np.swapaxes(kept["z"], 0, 1), stats, learnt, 0, seconds, gradients)

    def _call(
        self, key: Array, rungs: Rungs, done: int, count: int, thinning: int
    ) -> tuple[Rungs, dict[str, np.ndarray]]:
        numbers = (np.int32(done), np.int32(count), np.int32(thinning))
        rungs, found = self._run(self.args, self.table, rungs, self.ladder, key, *numbers)
        found = {name: np.asarray(value) for name, value in found.items()}
        self.discrepancy = max(self.discrepancy, float(found.pop("discrepancy")))
        return rungs, found

    # --------------------------------------------------------------------------- compiled

    def _start(self, args: Any, keys: Array) -> Array:
        path = self.path.at(*args)
        return lax.map(lambda key: path.sample(key, self.num_chains), keys)

    def _values(self, args: Any, z: Array) -> Mapping[str, Array]:
        """Return the sites' values (chain, draw, ...) at positions (draw, chain, D)."""
        return self.path.at(*args).constrain(jnp.swapaxes(z, 0, 1))

    def _advance(
        self,
        args: Any,
        table: Any,
        rungs: Rungs,
        ladder: Ladder,
        key: Array,
        index: Array,
        count: Array,
        thinning: Array,
    ) -> tuple[Rungs, dict[str, Array]]:
        path, kernel = self.path.at(*args), self.moves.bind()
        run = partial(tempering.step, ladder=ladder, path=path, kernel=kernel)

        def swept(number: Array, key: Array, z: Array, beta: Array) -> tuple[Array, Array]:
            mixed: Any = path
            options: dict[str, Any] = {"check": number % discrete_.CHECKED_EVERY == 0}

            def once(carry: tuple[Array, Array], key: Array) -> tuple[Any, None]:
                z, error = mixed.sweep(key, carry[0], beta, table, **options)
                return (z, jnp.maximum(carry[1], error)), None

            keys = random.split(key, self.kernel.num_discrete_steps)
            return lax.scan(once, (z, jnp.zeros((), z.dtype)), keys)[0]

        def move(number: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            rungs, _, gradients, worst = carry
            sweep = None if table is None else partial(swept, number)
            rungs, info, energy, error = run(
                random.fold_in(key, number), number, rungs, sweep=sweep
            )
            size = jnp.exp(jnp.where(ladder.learning, rungs.log_size, rungs.log_average))[-1]
            chains = jnp.ones_like(energy)
            seen = {
                "lp": -energy,
                "energy": info.energy[-1],
                "acceptance_rate": info.acceptance[-1],
                "diverging": info.diverging[-1],
                "n_steps": info.num_steps * chains.astype(jnp.int32),
                "step_size": size * chains,
            }
            count = info.num_steps.astype(jnp.int32) + 1
            return rungs, seen, gradients + count, jnp.maximum(worst, error)

        def draw(i: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            *moving, record = carry
            begin = index + i * thinning
            moving = lax.fori_loop(begin, begin + thinning, move, tuple(moving))
            new = {**moving[1], "z": moving[0].position}
            return *moving, jax.tree.map(lambda old, value: old.at[i].set(value), record, new)

        rungs = jax.tree.map(jnp.asarray, rungs)
        counted = (jnp.zeros((), jnp.int32), jnp.zeros((), rungs.position.dtype))
        shapes = jax.eval_shape(lambda: move(index, (rungs, None, *counted))[1])
        seen = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        empty = {**seen, "z": rungs.position}
        record = jax.tree.map(lambda s: jnp.zeros((self.chunk, *s.shape), s.dtype), empty)
        start = (rungs, seen, *counted, record)
        rungs, _, gradients, worst, record = lax.fori_loop(0, count, draw, start)
        return rungs, {**record, "gradients": gradients, "discrepancy": worst}
