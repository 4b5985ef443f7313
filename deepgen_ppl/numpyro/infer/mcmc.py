"""The verb `mcmc`: NumPyro's kernels on a program's potential, several chains, compiled once."""

from __future__ import annotations

import functools
import os
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

from deepgen_ppl import checks
from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.compilation import Build, compiled
from deepgen_ppl.numpyro.data import Inputs, as_inputs, as_key
from deepgen_ppl.numpyro.infer import evaluate
from deepgen_ppl.numpyro.infer import kernel as kernel_
from deepgen_ppl.numpyro.infer.importance import check_learned
from deepgen_ppl.numpyro.structure import Pair, Program
from deepgen_ppl.numpyro.unconstrained import Potential
from deepgen_ppl.posterior import Posterior

_TRIES = 100
_MOST_THREADED = 16
_CHUNK_NUMBERS = 2**20
_CHUNK_DRAWS = 250
_REPORT_SECONDS = 0.2


def mcmc(
    model: Callable[..., Any],
    *data: Any,
    kernel: Any = "nuts",
    num_warmup: int = 1000,
    num_samples: int = 1000,
    num_chains: int = 4,
    thinning: int = 1,
    target_accept_prob: float | None = None,
    init_strategy: Callable[..., Any] | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    chain_method: str = "auto",
    progress: bool = True,
    seed: int | Array = 0,
) -> Posterior:
    r"""Draw the latent sites of a model from their posterior by Hamiltonian Monte Carlo.

    The chain moves on the unconstrained space under the potential energy

    \[ U(z) = -\log p(x, T(z)) - \log |\det J_T(z)|, \]

    with discrete sites of finite support summed out by NumPyro's enumeration. One chain is compiled
    for a function, its shapes and the kernel's options; other data, bound arrays, parameters and
    seeds of the same shapes run what was compiled before.

    Args:
        model: A NumPyro program.
        *data: Its data, with rows on the leading axis.
        kernel: `"nuts"`, `"hmc"`, a kernel class of NumPyro, or `functools.partial` of one with
            options, as `partial(NUTS, max_tree_depth=8, dense_mass=True)`.
        num_warmup: Steps of adaptation of each chain, not kept.
        num_samples: Steps of each chain after it.
        num_chains: Number of chains.
        thinning: Keep every so-manyth step: `num_samples // thinning` draws of each chain.
        target_accept_prob: Acceptance rate the step size is adapted to; the kernel's own (0.8 for
            NUTS and HMC) when None.
        init_strategy: One of `numpyro.infer.initialization`; uniform on (-2, 2) of the
            unconstrained space when None.
        params: Learned values of the model's parameters: a dict or a `Fit`.
        model_kwargs: Constants passed to the model by name.
        chain_method: `"sequential"`, `"parallel"` (a thread for each chain, as many at once as
            there are cores), `"vectorized"` (all chains in one program), or `"auto"`: vectorized on
            an accelerator or with more than 16 chains, else parallel.
        progress: Whether to show a progress bar over all chains.
        seed: Seed of chains and starting points, an int or a random key.

    Returns:
        A posterior with draws of the latent and deterministic sites and ArviZ's sample statistics.

    Raises:
        TypeError: The kernel is an instance, which is bound to a model.
        ValueError: The model has no continuous latent site, a discrete one cannot be enumerated, it
            subsamples, or its density is not finite at any starting point: the message names the
            first such site.

    Cost:
        2 to 5 s to compile a small model the first time, then one gradient for each leapfrog step.

    References:
        Hoffman and Gelman: The No-U-Turn Sampler. JMLR 15, 2014. https://arxiv.org/abs/1111.4246

        Betancourt: A Conceptual Introduction to Hamiltonian Monte Carlo. 2017.
        https://arxiv.org/abs/1701.02434

    Example:
        >>> import numpyro, numpyro.distributions as dist
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     with numpyro.plate("data", len(y)):
        ...         numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> y = np.full(9, 2.0)
        >>> posterior = mcmc(model, y, num_warmup=200, num_samples=500, progress=False)
        >>> bool(abs(posterior.draws["mean"].mean() - 1.8) < 0.1)
        True
    """
    counts = {"num_samples": num_samples, "num_chains": num_chains, "thinning": thinning}
    _check_counts(num_warmup=num_warmup, **counts)
    vectorized = _is_vectorized(chain_method, num_chains)
    checks.check_target(target_accept_prob)
    kernel_class, options = kernel_.resolve(kernel, target_accept_prob)
    strategy = _strategy(init_strategy or options.pop("init_strategy", None))
    options.pop("init_strategy", None)
    learned = program_.learned(params)
    program = program_.read(model, data, model_kwargs=model_kwargs, params=learned, seed=seed)
    check_learned(Pair(program, None, program.local), learned)
    _check_program(program)
    inputs = program.inputs(data)
    values = {n: v for n, v in learned.items() if n in program.params or n in program.state}
    values = jax.tree.map(jnp.asarray, values)
    sampler = _Sampler(program, (inputs, values, as_inputs(options)), strategy, vectorized)
    threads = 1 if chain_method == "sequential" else (os.cpu_count() or 1)
    lengths = (num_warmup, num_samples // thinning, thinning)
    with tqdm(total=num_chains * (num_warmup + num_samples), disable=not progress) as bar:
        bar.set_description("compiling")
        sampler.compile(kernel_class, num_warmup, num_chains)
        record, seconds = sampler.run(as_key(seed), num_chains, lengths, threads, bar)
    flat = record["z"].reshape(-1, record["z"].shape[-1])
    draws = sampler.constrain(flat)
    stats = kernel_.statistics(kernel_class, record)
    return Posterior(
        {name: value.reshape(num_chains, -1, *value.shape[1:]) for name, value in draws.items()},
        stats=stats,
        method="mcmc",
        **evaluate.fields(program, values, inputs, seed=seed),
        attrs={
            "kernel": kernel_class.__name__,
            "compiled": "compiled",
            "compiled_reason": "warm-up and sampling of a chain are one compiled function",
            "compile_seconds": sampler.compile_seconds,
            "sampling_time": seconds,
            "tuning_steps": num_warmup,
        },
    )


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        least = 0 if name == "num_warmup" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    if counts["thinning"] > counts["num_samples"]:
        raise ValueError(
            f"thinning={counts['thinning']} keeps no draw of num_samples={counts['num_samples']}."
        )


def _is_vectorized(chain_method: str, num_chains: int) -> bool:
    methods = ("auto", "parallel", "sequential", "vectorized")
    if chain_method not in methods:
        raise ValueError(
            f"chain_method must be {', '.join(map(repr, methods[:-1]))} or {methods[-1]!r}, not "
            f"{chain_method!r}."
        )
    if chain_method == "auto":
        return jax.default_backend() != "cpu" or num_chains > _MOST_THREADED
    return chain_method == "vectorized"


def _check_program(program: Program) -> None:
    if not any(not site.is_discrete for site in program.latents.values()):
        names = checks.quote(program.latents) or "none"
        raise ValueError(
            f"mcmc needs a continuous latent site; the model's latent sites are {names}. Discrete "
            "latents alone are drawn by importance."
        )
    for plate in program.plates.values():
        if plate.subsampled:
            raise ValueError(
                f"Plate '{plate.name}' subsamples; mcmc needs all of its {plate.size} elements. "
                "Drop subsample_size."
            )
    for name, site in program.latents.items():
        if site.is_discrete and not site.enumerable:
            raise ValueError(
                f"The discrete latent '{name}' has no finite support to sum over, so '{name}' "
                "cannot be marginalised for HMC. Marginalise it by hand, or use importance or svi."
            )


def _strategy(strategy: Callable[..., Any] | None) -> tuple[Any, Any]:
    """Return a starting strategy as a function and its keywords, whose arrays are inputs."""
    keywords: dict[str, Any] = {}
    while isinstance(strategy, functools.partial):
        keywords = {**strategy.keywords, **keywords}
        strategy = strategy.func
    return as_inputs((strategy, keywords))


class _Sampler:
    """The chains of one call: compiled functions of the program, run with its inputs."""

    def __init__(
        self, program: Program, args: tuple[Any, Any, Any], strategy: Any, vectorized: bool
    ) -> None:
        self.program, self.args, self.strategy = program, args, strategy
        self.vectorized = vectorized

    def compile(self, kernel: Any, num_warmup: int, num_chains: int) -> None:
        """Compile a chain's start and its steps, unless that was done before."""
        program = self.program
        size = sum(int(np.prod(s.shape)) for s in program.latents.values())
        chunk = int(np.clip(_CHUNK_NUMBERS // max(size, 1), 1, _CHUNK_DRAWS))

        def make(params: Mapping[str, Any], inputs: Inputs) -> Potential:
            return program_.potential(program, params, inputs)

        self.chain = chain = kernel_.Chain(kernel, make, num_warmup, chunk)
        build = Build(program.fn)
        static = (kernel, num_warmup, chunk, self.vectorized)
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
            return program_.potential(self.program, params, inputs).constrain(unravel(draw["z"]))

        fn = self.program.fn
        return evaluate.over_draws(fn, "constrain", one, {"z": flat}, (values, inputs))

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
            latents = program_.potential(program, params, inputs).constrain(z)
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
