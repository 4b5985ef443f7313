"""The discrete kernels of `mcmc`: moves of the discrete sites, in turn with continuous ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to
from tqdm.auto import tqdm

from deepgen_ppl import blocks as blocks_
from deepgen_ppl import checks, mixing
from deepgen_ppl import discrete as discrete_
from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.compilation import Build, compiled
from deepgen_ppl.numpyro.data import Inputs, as_key
from deepgen_ppl.numpyro.discrete import read_coordinates
from deepgen_ppl.numpyro.infer import evaluate
from deepgen_ppl.numpyro.infer.space import starting_point
from deepgen_ppl.numpyro.infer.sweeps import Sweeps
from deepgen_ppl.numpyro.infer.vectorized import Sampled
from deepgen_ppl.numpyro.kernels import hmc
from deepgen_ppl.numpyro.kernels.adaptation import Adaptation, Window, learn
from deepgen_ppl.numpyro.kernels.adaptation import controls as controls_
from deepgen_ppl.numpyro.kernels.discrete_langevin import DiscreteLangevin
from deepgen_ppl.numpyro.kernels.gibbs import Gibbs
from deepgen_ppl.numpyro.kernels.gibbs_with_gradients import GibbsWithGradients
from deepgen_ppl.numpyro.structure import Program

Options = Gibbs | GibbsWithGradients | DiscreteLangevin

_TRIES = 100
_DENSE = 256
_CHUNK_NUMBERS = 2**22
_CHUNK_DRAWS = 256
_REPORT_SECONDS = 0.2


class Moving(NamedTuple):
    """Where the chains are, and what the next steps need.

    Attributes:
        x: Discrete coordinates, (chain, D).
        z: Unconstrained continuous positions, (chain, size).
        step_size: State of the step size's adaptation; None without continuous sites.
    """

    x: Array
    z: Array
    step_size: Any


def sample(
    kernel: Options,
    program: Program,
    params: Mapping[str, Any],
    inputs: Inputs,
    lengths: tuple[int, int, int],
    num_chains: int,
    *,
    strategy: Any,
    adaptation: Mapping[str, Any] | None = None,
    init: Any = None,
    progress: bool = True,
    seed: int | Array = 0,
) -> Sampled:
    """Run the chains of a discrete kernel, alternated with a continuous one on mixed programs.

    Args:
        kernel: The discrete kernel's options.
        program: The model.
        params: Its parameters and mutable state.
        inputs: Its inputs.
        lengths: Steps of warm-up, steps after it, and the thinning of these.
        num_chains: Number of chains.
        strategy: A starting strategy of the continuous sites.
        adaptation: What an earlier run learnt of them.
        init: A posterior whose draws the chains start from.
        progress: Whether to show a progress bar.
        seed: Seed of chains and starting points.
    """
    num_warmup, num_samples, thinning = lengths
    groups = None if init is not None else mixing.superchains(num_chains)
    coordinates = read_coordinates(program, params, inputs, _name(kernel))
    chains = Chains(program, coordinates, (params, inputs), kernel, num_chains)
    known = None if adaptation is None else checks.check_adaptation(adaptation, chains.size)
    start_key, run_key = random.split(as_key(seed))
    own = np.arange(num_chains) if groups is None else groups
    rest = (num_warmup, num_samples // thinning, thinning)
    with tqdm(total=num_chains * (num_warmup + num_samples), disable=not progress) as bar:
        bar.set_description("compiling")
        x, z = chains.starts(start_key, strategy, own) if init is None else chains.given(init, seed)
        chains.attrs |= chains.sweeps.prepare(x, z)
        found = chains.run(run_key, rest, (x, z), known, bar)
        if found["discrepancy"].max() > discrete_.MOST_DISCREPANCY:
            chains.sweeps.blocks = blocks_.singly(coordinates.size)
            bar.reset()
            found = chains.run(run_key, rest, (x, z), known, bar)
    x, z = found.pop("x"), found.pop("z")
    draws = chains.constrain(x, z)
    positions, sites = coordinates.looked_at(x, z, chains.shapes)
    attrs = chains.attrs | {"tuning_steps": num_warmup}
    attrs |= mixing.gate(type(kernel).__name__, positions, groups, sites, resting=not chains.size)
    found.pop("discrepancy")
    return Sampled(coordinates.integers(draws), found, attrs, chains.learnt, groups)


def _name(kernel: Options) -> str:
    if isinstance(kernel, DiscreteLangevin):
        return "discrete_langevin"
    return "gibbs" if isinstance(kernel, Gibbs) else "gibbs_with_gradients"


class Chains:
    """All chains of one call of a discrete kernel: compiled functions, run with their inputs.

    Args:
        program: The model.
        coordinates: Its discrete latents.
        args: Its parameters and inputs.
        kernel: The discrete kernel's options.
        num_chains: Number of chains.
    """

    def __init__(
        self,
        program: Program,
        coordinates: discrete_.Coordinates,
        args: tuple[Any, Inputs],
        kernel: Options,
        num_chains: int,
    ) -> None:
        self.program, self.coordinates, self.args = program, coordinates, args
        self.kernel, self.num_chains = kernel, num_chains
        self.sweeps = Sweeps(program, coordinates, args, kernel, self._split, num_chains)
        potential = self.sweeps.view(args).potential
        shapes = jax.eval_shape(potential.init, random.key(0))
        point, unravel = ravel_pytree(jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes))
        self._unravel, self.size = unravel, point.size
        self.dtype = np.dtype(jax.dtypes.canonicalize_dtype(point.dtype))
        self.shapes = {name: tuple(s.shape) for name, s in sorted(shapes.items())}
        self.learnt: dict[str, np.ndarray] | None = None
        numbers = num_chains * (coordinates.size + self.size)
        self.chunk = int(np.clip(_CHUNK_NUMBERS // numbers, 1, _CHUNK_DRAWS))
        self.attrs: dict[str, Any] = {
            "kernel": type(kernel).__name__,
            "compiled": "compiled",
            "compiled_reason": "the moves of all chains are one compiled function",
        }
        if self.size:
            self.attrs["continuous_kernel"] = type(kernel.continuous).__name__

    def starts(self, key: Array, strategy: Any, groups: np.ndarray) -> tuple[Any, Any]:
        """Return coordinates and positions of finite density, the same for the chains of a group.

        Raises:
            ValueError: There is none in 100 tries.
        """
        num = int(groups.max()) + 1

        def draw(args: Any, strategy: Any, keys: Array) -> tuple[Any, Array]:
            def one(key: Array) -> tuple[Any, Array]:
                own: dict = {"redraw": (), "stand_in": True}
                seen = program_.simulate(
                    self.program, args[0], args[1], random.fold_in(key, 1), **own
                )
                potential = self.sweeps.view(args).potential
                z = starting_point(potential, strategy, key) if self.size else {}
                return {n: seen[n] for n in self.coordinates.places}, self._ravel(z)

            return jax.vmap(one)(keys)

        x, z, good = None, None, np.zeros(num, bool)
        for attempt in range(_TRIES):
            keys = random.split(random.fold_in(key, attempt), num)
            call = (self.args, strategy, keys)
            run = compiled(self.program.fn, "discrete start", draw, *call, static=num, once=True)
            values, positions = jax.tree.map(np.asarray, run(*call))
            numbers = self.coordinates.numbers(values).astype(np.int32)
            x = numbers if x is None else np.where(good[:, None], x, numbers)
            z = positions if z is None else np.where(good[:, None], z, positions)
            terms = self.sweeps.terms(x, z)
            good = np.isfinite(terms.sum(1))
            if good.all():
                return x[groups], z[groups]
        raise ValueError(
            f"No starting point of finite density in {_TRIES} tries: {self._first_bad(x, z, good)}."
            " Check the data against the supports, or pass an init_strategy."
        )

    def given(self, init: Any, seed: int | Array) -> tuple[np.ndarray, np.ndarray]:
        """Return coordinates and positions of draws of a posterior.

        Raises:
            TypeError: It is no posterior.
            ValueError: It is one of another model.
        """
        shapes = {name: site.shape for name, site in self.program.latents.items()}
        number = seed if isinstance(seed, int) else 0
        found = discrete_.starting_draws(init, shapes, self.num_chains, number)
        x = self.coordinates.numbers(found).astype(np.int32)
        potential = self.sweeps.view(self.args).potential

        def position(values: dict[str, Array]) -> Array:
            return self._ravel(
                {n: biject_to(s.support).inv(values[n]) for n, s in potential.continuous.items()}
            )

        continuous = {name: jnp.asarray(found[name]) for name in potential.continuous}
        z = jax.vmap(position)(continuous) if self.size else np.zeros((len(x), 0), self.dtype)
        return x, np.asarray(z)

    def run(
        self,
        key: Array,
        lengths: tuple[int, int, int],
        start: tuple[np.ndarray, np.ndarray],
        known: Mapping[str, np.ndarray] | None,
        bar: tqdm,
    ) -> dict[str, np.ndarray]:
        """Adapt the continuous kernel, then sample; return statistics and positions by chain."""
        began = time.perf_counter()
        num_warmup, num_draws, thinning = lengths
        learning = self._adaptation(num_warmup, known) if self.size else None
        sizes = learning.step_size if learning else None
        moving = Moving(jnp.asarray(start[0]), jnp.asarray(start[1]), sizes)
        self._compile(moving, learning)
        rng = np.random.default_rng(np.asarray(random.key_data(key), np.uint32).tolist())
        self._most, done, discrepancy = 4, 0, 0.0
        for end in sorted({*map(int, learning.ends if learning else ()), num_warmup} - {0}):
            window = Window()
            while done < end:
                left = end - done
                moving, found, count = self._call(key, moving, learning, done, left, 1, bar)
                discrepancy = max(discrepancy, float(found["discrepancy"][:count].max()))
                if learning:
                    window.add(*(found[n][:count] for n in ("z", "potential", "n_steps")))
                done += count
            if learning:
                learning.close(end, window, rng)
        parts: list[dict[str, np.ndarray]] = []
        while done < num_warmup + num_draws * thinning:
            left = num_draws - (done - num_warmup) // thinning
            moving, found, count = self._call(key, moving, learning, done, left, thinning, bar)
            parts.append({name: value[:count] for name, value in found.items()})
            done += count * thinning
        kept = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        kept["discrepancy"][0] = np.maximum(kept["discrepancy"][0], discrepancy)
        self.learnt = learning.learnt() if learning else None
        self.attrs |= {
            "num_blocks": self.sweeps.blocks.num_moves,
            "restarted_chains": learning.restarted if learning else 0,
            "sampling_time": time.perf_counter() - began - self.attrs["compile_seconds"],
        }
        return self._by_chain(kept)

    def constrain(self, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of all sites at kept points, (chain, draw, ...)."""
        size, lead = x.shape[0] * x.shape[1], x.shape[:2]
        flat = {"x": x.reshape(size, -1).astype(np.int32), "z": z.reshape(size, self.size)}
        if not self.size and not self.program.named("deterministic"):
            values = self.coordinates.values(flat["x"])
            return {name: value.reshape(*lead, *value.shape[1:]) for name, value in values.items()}

        def one(draw: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Any]:
            return self.sweeps.view((params, inputs)).constrain(draw["x"], self._split(draw["z"]))

        call = (self.program.fn, "discrete values", one, flat, self.args)
        found = evaluate.over_draws(*call, static=self.sweeps.static)
        return {name: value.reshape(*lead, *value.shape[1:]) for name, value in found.items()}

    # --------------------------------------------------------------------------- compiled

    def _split(self, position: Array) -> dict[str, Array]:
        return self._unravel(position)

    def _ravel(self, z: Any) -> Array:
        return ravel_pytree(z)[0].astype(self.dtype)

    def _advance(
        self, args: Any, moving: Moving, phase: Any, table: Any, key: Array, index: Array,
        count: Array, thinning: Array,
    ) -> tuple[Moving, dict[str, Array]]:  # fmt: skip
        """Take `count` draws, each after `thinning` steps."""
        if self.size:
            moving = moving._replace(x=moving.x[phase.source], z=moving.z[phase.source])

        def energy(z: Array, x: Array) -> Array:
            return self.sweeps.view(args).energy(self._split(z), x)

        def move(number: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            state, z, step_size, before = carry
            discrete_key, continuous_key = random.split(random.fold_in(key, number))
            state = self.sweeps.begin(args, table, state.position, z) if self.size else state
            state, seen = self.sweeps.moved(args, table, discrete_key, state, z, number)
            if before is not None:  # steps that are thinned out count too
                seen["discrepancy"] = jnp.maximum(seen["discrepancy"], before["discrepancy"])
            if self.size:
                x = state.position
                both = jax.vmap(jax.value_and_grad(energy))
                steer = controls_(phase, step_size, number)
                here = hmc.init(z, lambda z: both(z, x))
                here, info = self.kernel.continuous.bind()(
                    continuous_key, here, lambda z: both(z, x), steer
                )
                step_size, z = learn(phase, step_size, info.acceptance), here.position
                seen |= {"lp": -here.potential, "potential": here.potential}
                seen |= {"energy": info.energy, "diverging": info.diverging}
                seen |= {"n_steps": info.num_steps.astype(jnp.int32)}
                seen |= {"acceptance_rate": info.acceptance, "step_size": steer.step_size.mean()}
            return state, z, step_size, seen

        def draw(i: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            *now, record = carry
            first = index + i * thinning
            now = lax.fori_loop(first, first + thinning, move, tuple(now))
            new = {**now[3], "x": now[0].position.astype(self.sweeps.small), "z": now[1]}
            return *now, jax.tree.map(lambda old, value: old.at[i].set(value), record, new)

        begun = (self.sweeps.begin(args, table, moving.x, moving.z), moving.z, moving.step_size)
        begun = jax.tree.map(jnp.asarray, begun)
        shapes = jax.eval_shape(lambda now: move(index, (*now, None))[3], begun)
        seen = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        new = {**shapes, "z": moving.z, "x": moving.x.astype(self.sweeps.small)}
        record = jax.tree.map(lambda s: jnp.zeros((self.chunk, *s.shape), s.dtype), new)
        state, z, step_size, _, record = lax.fori_loop(0, count, draw, (*begun, seen, record))
        return Moving(state.position, z, step_size), record

    # ------------------------------------------------------------------------------- calls

    def _adaptation(self, num_warmup: int, known: Mapping[str, np.ndarray] | None) -> Adaptation:
        kernel = self.kernel.continuous
        return Adaptation(
            num_warmup,
            np.zeros((self.num_chains, self.size), self.dtype),
            target=kernel.target_accept_prob,
            lengths=getattr(kernel, "trajectory_lengths", (1.0,)),
            step_size=kernel.step_size,
            dense=self.size <= _DENSE if kernel.dense is None else kernel.dense,
            known=known,
        )

    def _compile(self, moving: Moving, learning: Adaptation | None) -> None:
        phase, number = learning.phase(0) if learning else None, np.int32(0)
        call = (self.args, moving, phase, self.sweeps.table, random.key(0), number, number, number)
        build = Build(self.program.fn)
        static = (self.kernel, self.chunk, self.sweeps.static, self.sweeps.gradient)
        build.add("discrete", self._advance, *call, static=static)
        self._run = build.compile()["discrete"]
        self.attrs["compile_seconds"] = build.seconds

    def _call(
        self, key: Array, moving: Moving, learning: Adaptation | None, done: int, left: int,
        thinning: int, bar: tqdm,
    ) -> tuple[Moving, dict[str, np.ndarray], int]:  # fmt: skip
        """Run the compiled steps once, for about as long as a report."""
        count, began = min(left, self._most), time.perf_counter()
        phase = learning.phase(done) if learning else None
        numbers = (np.int32(done), np.int32(count), np.int32(thinning))
        moving, found = self._run(self.args, moving, phase, self.sweeps.table, key, *numbers)
        found = {name: np.asarray(value) for name, value in found.items()}
        if learning:
            learning.step_size = moving.step_size
            learning.source = np.arange(self.num_chains, dtype=np.int32)
        seconds = time.perf_counter() - began
        if seconds < _REPORT_SECONDS:
            self._most = min(2 * self._most, self.chunk)
        elif seconds > 4 * _REPORT_SECONDS:
            self._most = max(1, self._most // 2)
        bar.set_description("sample", refresh=False)
        bar.update(count * thinning * self.num_chains)
        return moving, found, count

    def _by_chain(self, kept: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {name: value for name, value in kept.items() if name != "potential"}
        shape = found["lp"].shape
        for name in ("n_steps", "step_size"):
            if name in found:
                found[name] = np.broadcast_to(found[name][:, None], shape)
        return {name: np.swapaxes(value, 0, 1) for name, value in found.items()}

    def _first_bad(self, x: Any, z: Any, good: np.ndarray) -> str:
        """Say which site's log density is not finite."""
        view, row = self.sweeps.view(self.args), int(np.argmin(good))
        latents = view.constrain(jnp.asarray(x[row]), self._split(jnp.asarray(z[row])))
        found = program_.log_probs(self.program, view.params, latents, self.args[1])
        for name, log_prob in found.items():
            value = np.asarray(log_prob)
            if not np.isfinite(value).all():
                bad = value[~np.isfinite(value)].flat[0]
                return f"the log density of site '{name}' is {bad}"
        return "the log density is not finite"
