"""The sampling driver: several chains of a kernel, compiled once, with one bar over all of them."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.flatten_util import ravel_pytree
from tqdm.auto import tqdm

from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.compilation import Build, compiled
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.infer import evaluate
from deepgen_ppl.numpyro.infer import kernel as kernel_
from deepgen_ppl.numpyro.infer.space import Space

_TRIES = 100
_CHUNK_NUMBERS = 2**20
_CHUNK_DRAWS = 250
_REPORT_SECONDS = 0.2


class Sampler:
    """The chains of one call: compiled functions of the program, run with its inputs."""

    def __init__(
        self, space: Space, args: tuple[Any, Any, Any], strategy: Any, vectorized: bool
    ) -> None:
        self.space, self.program = space, space.program
        self.args, self.strategy = args, strategy
        self.vectorized = vectorized

    def compile(self, kernel: Any, num_warmup: int, num_chains: int) -> None:
        """Compile a chain's start and its steps, unless that was done before."""
        program = self.program
        size = sum(int(np.prod(s.shape)) for s in program.latents.values())
        chunk = int(np.clip(_CHUNK_NUMBERS // max(size, 1), 1, _CHUNK_DRAWS))

        self.chain = chain = kernel_.Chain(kernel, self.space.potential, num_warmup, chunk)
        build = Build(program.fn)
        static = (kernel, num_warmup, chunk, self.vectorized, self.space.static)
        start, key = chain.start, random.key(0)
        if self.vectorized:
            start = jax.vmap(start, in_axes=(None, None, None, None, 0, None))
            key = random.split(key, num_chains)
        state, z = build.add(
            "start", start, *self.args, self.strategy, key, np.int32(0), static=static
        )
        advance = chain.advance
        if self.vectorized:
            z = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), z)
            axes = kernel_.axes(state)
            # The clocks come out of `start` one for each chain; they agree.
            state = _merge_clocks(state, axes)
            advance = jax.vmap(
                advance,
                in_axes=(None, None, None, None, axes, None, None),
                out_axes=(axes, 0),
            )
        count = np.int32(0)
        build.add("advance", advance, *self.args, z, state, count, count, static=static)
        made = build.compile()
        self.start, self.advance = made["start"], made["advance"]
        self.compile_seconds = build.seconds
        self.prototype = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), z)

    def run(
        self, key: Array, num_chains: int, lengths: tuple[int, int, int], threads: int, bar: tqdm
    ) -> tuple[dict[str, np.ndarray], float]:
        """Run all chains; return their record, (chain, draw, ...), and the seconds it took."""
        began = time.perf_counter()
        stop = threading.Event()
        keys = random.split(key, num_chains)
        groups = [keys] if self.vectorized else list(keys)
        with ThreadPoolExecutor(min(threads, len(groups))) as pool:
            tell = _Progress(bar, num_chains if self.vectorized else 1, threading.Lock())
            jobs = [pool.submit(self._chain, key, lengths, tell, stop) for key in groups]
            try:
                # Short waits: the main thread stays open to Ctrl-C.
                while wait(jobs, timeout=0.1, return_when="FIRST_EXCEPTION").not_done:
                    if any(job.done() and job.exception() for job in jobs):
                        break
            finally:
                stop.set()
        records = [job.result() for job in jobs]
        if self.vectorized:
            return records[0], time.perf_counter() - began
        stacked = {name: np.stack([r[name] for r in records]) for name in records[0]}
        return stacked, time.perf_counter() - began

    def constrain(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Return the sites' values at unconstrained positions (S, size)."""
        inputs, values, _ = self.args
        _, unravel = ravel_pytree(self.prototype)

        def one(draw: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Any]:
            return self.space.potential(params, inputs).constrain(unravel(draw["z"]))

        fn = self.program.fn
        return evaluate.over_draws(
            fn, "constrain", one, {"z": flat}, (values, inputs), static=self.space.static
        )

    def _chain(
        self,
        key: Array,
        lengths: tuple[int, int, int],
        tell: Callable[..., None],
        stop: threading.Event,
    ) -> dict[str, np.ndarray]:
        """Run one chain (or all of them as one) from its start to its last draw."""
        num_warmup, num_draws, thinning = lengths
        state = self._begin(key)
        parts: list[dict[str, np.ndarray]] = []
        # Calls are short at first and grow until each takes about as long as a report.
        most, began = min(8, self.chain.chunk), time.perf_counter()
        for phase, total, each in (("warmup", num_warmup, 1), ("sample", num_draws, thinning)):
            done = 0
            while done < total and not stop.is_set():
                count = min(most, total - done)
                state, found = self._advance(state, count, each)
                record = {n: np.asarray(v)[..., :count, :] if n == "z" else _first(v, count)
                          for n, v in found.items()}  # fmt: skip
                if phase == "sample":
                    parts.append(record)
                done += count
                now = time.perf_counter()
                most = min(2 * most, self.chain.chunk) if now - began < _REPORT_SECONDS else most
                most = max(1, most // 2) if now - began > 4 * _REPORT_SECONDS else most
                began = now
                tell(phase, count * each, record)
        if not parts:
            return {}
        axis = 1 if self.vectorized else 0
        return {n: np.concatenate([part[n] for part in parts], axis=axis) for n in parts[0]}

    def _advance(self, state: Any, count: int, thinning: int) -> tuple[Any, dict[str, Array]]:
        numbers = np.int32(count), np.int32(thinning)
        return self.advance(*self.args, self.prototype, state, *numbers)

    def _begin(self, key: Array) -> Any:
        """Return a state of finite energy and gradient."""
        merged, settled, z = None, np.zeros((), bool), {}
        for attempt in range(_TRIES):
            state, z = self.start(*self.args, self.strategy, key, np.int32(attempt))
            if self.vectorized:
                state = _merge_clocks(state, kernel_.axes(state))
            state, _ = self._advance(state, 0, 1)
            good = _is_finite(state)
            if merged is not None and self.vectorized:
                pick = functools.partial(_where, jnp.asarray(good & np.logical_not(settled)))
                merged, settled = jax.tree.map(pick, state, merged), good | settled
            else:
                merged, settled = state, good
            if settled.all():
                return merged
        raise ValueError(
            f"No starting point of finite density in {_TRIES} tries: "
            f"{self._first_bad(z, settled)}. Check the data against the supports, or pass an "
            "init_strategy."
        )

    def _first_bad(self, z: dict[str, Array], settled: np.ndarray) -> str:
        inputs, values, _ = self.args
        if self.vectorized:
            worst = int(np.argmin(settled))
            z = {name: value[worst] for name, value in z.items()}
        program = self.program

        def densities(z: Any, params: Any, inputs: Inputs) -> dict[str, Array]:
            latents = self.space.potential(params, inputs).constrain(z)
            return program_.log_probs(program, params, latents, inputs)

        run = compiled(program.fn, "densities", densities, z, values, inputs)
        for name, log_prob in run(z, values, inputs).items():
            found = np.asarray(log_prob)
            if not np.isfinite(found).all():
                bad = found[~np.isfinite(found)].flat[0]
                return f"the log density of site '{name}' is {bad}"
        return "the gradient of the log density is not finite"


class _Progress:
    """Moves the bar at each report of a chain, from any thread."""

    def __init__(self, bar: tqdm, width: int, lock: threading.Lock) -> None:
        self.bar, self.width, self.lock = bar, width, lock
        self.divergences = 0

    def __call__(self, phase: str, steps: int, record: Mapping[str, Any]) -> None:
        """Report steps of one chain (of `width` chains, when they move together)."""
        if self.bar.disable:
            return
        with self.lock:
            said = []
            if "step_size" in record:
                said.append(f"step {np.mean(record['step_size']):.1e}")
            if "num_steps" in record:
                said.append(f"{np.mean(record['num_steps']):.0f} leapfrogs")
            if "accept_prob" in record:
                said.append(f"acc. {np.mean(record['accept_prob']):.2f}")
            if "diverging" in record and phase == "sample":
                self.divergences += int(np.sum(record["diverging"]))
            said.append(f"{self.divergences} divergences")
            self.bar.set_description(phase, refresh=False)
            self.bar.set_postfix_str(", ".join(said), refresh=False)
            self.bar.update(steps * self.width)


def _first(value: Any, count: int) -> np.ndarray:
    return np.asarray(value)[..., :count]


def _is_finite(state: Any) -> np.ndarray:
    """Tell of each chain whether its energy and gradient are finite."""
    good = np.isfinite(state.potential_energy)
    for leaf in jax.tree.leaves(getattr(state, "z_grad", ())):
        good = good & np.isfinite(leaf).reshape(*good.shape, -1).all(-1)
    return good


def _where(pick: Array, new: Array, old: Array) -> Array:
    if new.shape[: pick.ndim] != pick.shape:
        return old
    shape = pick.shape + (1,) * (new.ndim - pick.ndim)
    if jnp.issubdtype(new.dtype, jax.dtypes.prng_key):
        data = _where(pick, random.key_data(new), random.key_data(old))
        return random.wrap_key_data(data, impl=random.key_impl(new))
    return jnp.where(pick.reshape(shape), new, old)


def _merge_clocks(state: Any, axes: Any) -> Any:
    """Return a mapped state with one clock for all chains, where `axes` has none."""
    leaves, tree = jax.tree.flatten(state)
    chosen = tree.flatten_up_to(jax.tree.map(lambda a: a, axes, is_leaf=lambda a: a is None))

    def one(leaf: Any, axis: int | None) -> Any:
        if axis is not None:
            return leaf
        if isinstance(leaf, jax.Array):
            return leaf[0]
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

    return tree.unflatten([one(leaf, axis) for leaf, axis in zip(leaves, chosen, strict=True)])
