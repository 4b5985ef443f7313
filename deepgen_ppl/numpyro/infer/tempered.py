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
from tqdm.auto import tqdm

from deepgen_ppl import mixing
from deepgen_ppl.numpyro.compilation import Build
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.infer.ensemble import Record
from deepgen_ppl.numpyro.infer.vectorized import Sampled
from deepgen_ppl.numpyro.kernels import adaptation as adaptation_
from deepgen_ppl.numpyro.kernels import tempering
from deepgen_ppl.numpyro.kernels.tempering import Ladder, ParallelTempering, Rungs
from deepgen_ppl.numpyro.path import Path

_DENSE = 256
_CHUNK_NUMBERS = 2**22
_CHUNK_DRAWS = 256


def sample(
    kernel: ParallelTempering,
    path: Path,
    lengths: tuple[int, int, int],
    num_chains: int,
    *,
    progress: bool = True,
    seed: int | Array = 0,
) -> Sampled:
    """Run the chains of parallel tempering.

    Args:
        kernel: Its options.
        path: The path from the prior to the posterior.
        lengths: Steps of warm-up, steps after it, and the thinning of these.
        num_chains: Number of chains at each temperature.
        progress: Whether to show a progress bar.
        seed: Seed of chains and starting points.
    """
    num_warmup, num_samples, thinning = lengths
    ladder = Tempered(path, kernel.kernel, kernel.num_temperatures, num_chains)
    with tqdm(total=num_chains * (num_warmup + num_samples), disable=not progress) as bar:
        bar.set_description("compiling")
        ladder.compile()
        bar.set_description("warmup")
        record = ladder.run(as_key(seed), (num_warmup, num_samples // thinning, thinning), bar)
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
    found = mixing.gate(attrs["kernel"], record.positions, None, list(path.layout.shapes.items()))
    return Sampled(record.draws, record.stats, attrs | found)


class Tempered:
    """All chains of one run of parallel tempering.

    Args:
        path: The path from the prior to the posterior.
        kernel: Options of the kernel that moves the chains.
        num_temperatures: Number of temperatures.
        num_chains: Number of chains at each of them.

    Attributes:
        ladder: Temperatures and covariances as warm-up left them.
        swap_rates: Mean acceptance of the swaps of each pair of neighbours, after warm-up.
    """

    def __init__(self, path: Path, kernel: Any, num_temperatures: int, num_chains: int) -> None:
        self.path, self.kernel = path, kernel
        self.num_temperatures, self.num_chains = num_temperatures, num_chains
        self.dtype = np.dtype(jnp.zeros(()).dtype)
        self.dense = path.dim <= _DENSE if kernel.dense is None else kernel.dense
        target = kernel.target_accept_prob
        self.ladder = tempering.first(num_temperatures, path.dim, target, self.dtype)
        self.swap_rates = np.zeros(num_temperatures - 1)

    def compile(self) -> None:
        """Compile the steps and the way back to the sites, unless that was done before."""
        path, shape = self.path, (self.num_temperatures, self.num_chains, self.path.dim)
        numbers = int(np.prod(shape)) + self.num_chains * sum(
            leaf.size
            for leaf in jax.tree.leaves(jax.eval_shape(path.constrain, jnp.zeros(path.dim)))
        )
        self.chunk = int(np.clip(_CHUNK_NUMBERS // numbers, 1, _CHUNK_DRAWS))
        self.args = (path.params, path.inputs)
        static = (self.kernel, self.chunk, *path.static)
        build, count = Build(path.owner), np.int32(0)
        rungs = tempering.restarted(Rungs(np.zeros(shape, self.dtype), *[None] * 5))  # type: ignore
        rest = (rungs, self.ladder, random.key(0), count, count, count)
        build.add("tempering", self._advance, self.args, *rest, static=static)
        z = jax.ShapeDtypeStruct((self.chunk, *shape[1:]), self.dtype)
        build.add("tempering values", self._values, self.args, z, static=static)
        keys = random.split(random.key(0), self.num_temperatures)
        build.add("tempering start", self._start, self.args, keys, static=static, once=True)
        made = build.compile()
        self._run, self._draws = made["tempering"], made["tempering values"]
        self._begin, self.compile_seconds = made["tempering start"], build.seconds

    def run(self, key: Array, lengths: tuple[int, int, int], bar: tqdm) -> Record:
        """Adapt ladder and kernel, then sample.

        Args:
            key: Random key.
            lengths: Steps of warm-up, draws of each chain, and the steps between draws.
            bar: Progress bar over the steps of all chains.
        """
        began = time.perf_counter()
        num_warmup, num_draws, thinning = lengths
        start_key, key = random.split(key)
        position = self._begin(self.args, random.split(start_key, self.num_temperatures))
        rungs = tempering.restarted(Rungs(position, *[None] * 5))  # type: ignore[arg-type]
        ends = [int(end) for end in adaptation_.windows(num_warmup)]
        done = gradients = 0
        for end in sorted(set(ends) - {0}):
            window = []
            while done < end:
                count = min(self.chunk, end - done)
                rungs, found = self._call(key, rungs, done, count, 1)
                window.append(found["z"][:count])
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
        size = np.exp(np.asarray(rungs.log_average)[-1])
        learnt = {"step_size": np.asarray(size), "root": np.asarray(self.ladder.roots)[-1]}
        seconds = time.perf_counter() - began
        joined = {name: np.concatenate([d[name] for d in draws], axis=1) for name in draws[0]}
        return Record(joined, np.swapaxes(kept["z"], 0, 1), stats, learnt, 0, seconds, gradients)

    def _call(
        self, key: Array, rungs: Rungs, done: int, count: int, thinning: int
    ) -> tuple[Rungs, dict[str, np.ndarray]]:
        numbers = (np.int32(done), np.int32(count), np.int32(thinning))
        rungs, found = self._run(self.args, rungs, self.ladder, key, *numbers)
        return rungs, {name: np.asarray(value) for name, value in found.items()}

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
        rungs: Rungs,
        ladder: Ladder,
        key: Array,
        index: Array,
        count: Array,
        thinning: Array,
    ) -> tuple[Rungs, dict[str, Array]]:
        path, kernel = self.path.at(*args), self.kernel.bind()
        run = partial(tempering.step, ladder=ladder, path=path, kernel=kernel)

        def move(number: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            rungs, _, gradients = carry
            rungs, info, energy = run(random.fold_in(key, number), number, rungs)
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
            return rungs, seen, gradients + info.num_steps.astype(jnp.int32) + 1

        def draw(i: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            *moving, record = carry
            begin = index + i * thinning
            moving = lax.fori_loop(begin, begin + thinning, move, tuple(moving))
            new = {**moving[1], "z": moving[0].position}
            return *moving, jax.tree.map(lambda old, value: old.at[i].set(value), record, new)

        rungs = jax.tree.map(jnp.asarray, rungs)
        whole = jnp.zeros((), jnp.int32)
        shapes = jax.eval_shape(lambda: move(index, (rungs, None, whole))[1])
        seen = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        empty = {**seen, "z": rungs.position}
        record = jax.tree.map(lambda s: jnp.zeros((self.chunk, *s.shape), s.dtype), empty)
        rungs, _, gradients, record = lax.fori_loop(0, count, draw, (rungs, seen, whole, record))
        return rungs, {**record, "gradients": gradients}
