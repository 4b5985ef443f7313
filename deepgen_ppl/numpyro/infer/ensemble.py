"""The driver of vectorised kernels: starting points, warm-up, sampling, records on the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from tqdm.auto import tqdm

from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.compilation import Build, compiled
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.infer.space import Space, starting_point
from deepgen_ppl.numpyro.kernels import hmc
from deepgen_ppl.numpyro.kernels.adaptation import Adaptation, Phase, StepSize, Window, learn
from deepgen_ppl.numpyro.kernels.adaptation import controls as controls_
from deepgen_ppl.numpyro.kernels.hmc import HMCState

_TRIES = 100
_RADIUS = 2.0  # of the starting points on the unconstrained space
_DENSE = 256  # unconstrained numbers up to which the whole covariance is estimated
_CHUNK_NUMBERS = 2**22
_CHUNK_DRAWS = 256
_REPORT_SECONDS = 0.2
_FIRST_CALL = 16


class Record(NamedTuple):
    """What a run leaves, on the host.

    Attributes:
        draws: Values of the sites, (chain, draw, ...).
        positions: Kept positions, (chain, draw, D).
        stats: Statistics of each kept step under ArviZ's names, (chain, draw).
        adaptation: What warm-up learnt: `step_size`, `root`, `trajectory_length`.
        restarted: Number of chains that were lost during warm-up and set out anew.
        seconds: Time of warm-up and sampling.
        num_gradients: Gradients of all chains that both took.
    """

    draws: dict[str, np.ndarray]
    positions: Float[np.ndarray, "chain draw D"]
    stats: dict[str, np.ndarray]
    adaptation: dict[str, np.ndarray]
    restarted: int
    seconds: float
    num_gradients: int


class Ensemble:
    """All chains of one call of a vectorised kernel: compiled functions, run with their inputs.

    Args:
        space: What the chains walk on.
        inputs: Inputs of the program.
        kernel: The kernel's options.
        num_chains: Number of chains.
    """

    def __init__(self, space: Space, inputs: Inputs, kernel: Any, num_chains: int) -> None:
        self.space, self.program, self.kernel = space, space.program, kernel
        self.args, self.num_chains = (space.params, inputs), num_chains
        potential = space.potential(*self.args)
        shapes = jax.eval_shape(potential.init, random.key(0))
        point, self._unravel = ravel_pytree(
            jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
        )
        self.size, self.dtype = point.size, np.dtype(point.dtype)
        self.sites = {name: tuple(s.shape) for name, s in sorted(shapes.items())}
        dense = getattr(kernel, "dense", None)
        self.dense = self.size <= _DENSE if dense is None else dense

    def adapt(self, num_warmup: int, known: Mapping[str, np.ndarray] | None) -> Adaptation:
        """Return what learns during warm-up."""
        kernel = self.kernel
        return Adaptation(
            num_warmup,
            np.zeros((self.num_chains, self.size), self.dtype),
            target=kernel.target_accept_prob,
            lengths=getattr(kernel, "trajectory_lengths", (1.0,)),
            step_size=kernel.step_size,
            dense=self.dense,
            known=known,
        )

    def compile(self, adaptation: Adaptation) -> None:
        """Compile the steps and the way back to the sites, unless that was done before."""
        args, like = self.args, jax.ShapeDtypeStruct((self.num_chains, self.size), self.dtype)
        drawn = jax.eval_shape(
            self._constrain, args, jax.ShapeDtypeStruct((self.size,), self.dtype)
        )
        numbers = sum(leaf.size for leaf in jax.tree.leaves(drawn)) + self.size
        most = _CHUNK_NUMBERS // max(numbers * self.num_chains, 1)
        self.chunk = int(np.clip(most, 1, _CHUNK_DRAWS))
        build = Build(self.program.fn)
        static = (self.kernel, self.chunk, self.num_chains, self.space.static)
        state = jax.eval_shape(hmc.unknown, like)
        phase, step_size = adaptation.phase(0), adaptation.step_size
        count = np.int32(0)
        rest = (random.key(0), count, count, count)
        build.add("ensemble", self._advance, args, state, step_size, phase, *rest, static=static)
        z = jax.ShapeDtypeStruct((self.chunk, *like.shape), self.dtype)
        build.add("ensemble values", self._values, args, z, static=static)
        made = build.compile()
        self._run, self._draws = made["ensemble"], made["ensemble values"]
        self.compile_seconds = build.seconds

    def starts(
        self, key: Array, strategy: Any, groups: np.ndarray, attempt: int
    ) -> Float[np.ndarray, "chain D"]:
        """Return starting points, the same one for the chains of a group.

        Args:
            key: Random key.
            strategy: Function and keywords of a starting strategy; uniform on (-2, 2) of the
                unconstrained space where the function is None.
            groups: Number of the group of each chain.
            attempt: Number of the attempt.
        """
        num = int(groups.max()) + 1
        key = random.fold_in(key, attempt)
        if strategy[0] is None and self.space.static is None:
            seed = np.asarray(random.key_data(key), np.uint32).tolist()
            uniform = np.random.default_rng(seed).uniform(-_RADIUS, _RADIUS, (num, self.size))
            return uniform.astype(self.dtype)[groups]

        def start(args: Any, strategy: Any, keys: Any) -> Array:
            potential = self.space.potential(*args)
            one = partial(starting_point, potential, strategy)
            return jax.vmap(lambda key: ravel_pytree(one(key))[0])(keys)

        call = (self.args, strategy, random.split(key, num))
        run = compiled(
            self.program.fn,
            "ensemble start",
            start,
            *call,
            static=(num, self.space.static),
            once=True,
        )
        return np.asarray(run(*call))[groups]

    def run(
        self,
        key: Array,
        lengths: tuple[int, int, int],
        adaptation: Adaptation,
        start: Callable[[int], Float[np.ndarray, "chain D"]],
        bar: tqdm,
    ) -> Record:
        """Adapt the kernel over all chains, then sample.

        Args:
            key: Random key.
            lengths: Steps of warm-up, draws of each chain, and the steps between draws.
            adaptation: What learns during warm-up.
            start: The number of an attempt to the chains' starting points.
            bar: Progress bar over the steps of all chains.

        Raises:
            ValueError: A chain found no starting point of finite density in 100 tries.
        """
        began = time.perf_counter()
        num_warmup, num_draws, thinning = lengths
        self._bar, self._gradients = bar, 0
        state = self._begin(key, start, adaptation)
        rng = np.random.default_rng(np.asarray(random.key_data(key), np.uint32).tolist())
        done = 0
        for end in sorted({int(end) for end in adaptation.ends} - {0}):
            window = Window()
            while done < end:
                state, found, count = self._call(key, state, adaptation, done, end - done, 1)
                window.add(found["z"][:count], found["lp"][:count], found["n_steps"][:count])
                done += count
            adaptation.close(end, window, rng)
        parts: list[tuple[dict[str, Any], dict[str, np.ndarray], int]] = []
        while done < num_warmup + num_draws * thinning:
            left = num_draws - (done - num_warmup) // thinning
            state, found, count = self._call(key, state, adaptation, done, left, thinning)
            parts.append((self._draws(self.args, found["z"]), found, count))
            done += count * thinning
        draws = {
            n: np.concatenate([np.asarray(p[0][n])[:, : p[2]] for p in parts], 1)
            for n in parts[0][0]
        }
        kept = {
            n: np.concatenate([np.asarray(p[1][n])[: p[2]] for p in parts]) for n in parts[0][1]
        }
        return Record(
            draws,
            np.swapaxes(kept["z"], 0, 1),
            self._statistics(kept),
            adaptation.learnt(),
            adaptation.restarted,
            time.perf_counter() - began,
            self._gradients,
        )

    def first_bad(self, position: Float[np.ndarray, " D"]) -> str:
        """Say which site's log density is not finite at a position."""

        def densities(args: Any, z: Array) -> dict[str, Array]:
            latents = self._constrain(args, z)
            return program_.log_probs(self.program, args[0], latents, args[1])

        if not any(site.is_discrete for site in self.program.latents.values()):
            run = compiled(
                self.program.fn, "ensemble densities", densities, self.args, position, once=True,
                static=self.space.static,
            )  # fmt: skip
            for name, log_prob in run(self.args, position).items():
                found = np.asarray(log_prob)
                if not np.isfinite(found).all():
                    bad = found[~np.isfinite(found)].flat[0]
                    return f"the log density of site '{name}' is {bad}"
        return "the log density or its gradient is not finite"

    # --------------------------------------------------------------------------- compiled

    def _energy(self, args: Any, z: Array) -> Array:
        return self.space.potential(*args).energy(self._unravel(z))

    def _constrain(self, args: Any, z: Array) -> dict[str, Array]:
        return self.space.potential(*args).constrain(self._unravel(z))

    def _values(self, args: Any, z: Array) -> dict[str, Array]:
        """Return the sites' values (chain, draw, ...) at positions (draw, chain, D)."""
        one = partial(self._constrain, args)
        return jax.vmap(jax.vmap(one), in_axes=1)(z)

    def _advance(
        self,
        args: Any,
        state: HMCState,
        step_size: StepSize,
        phase: Phase,
        key: Array,
        index: Array,
        count: Array,
        thinning: Array,
    ) -> tuple[HMCState, StepSize, dict[str, Array]]:
        """Make `count` draws of all chains, `thinning` steps each, from the step `index` on."""
        state = jax.tree.map(lambda leaf: leaf[phase.source], state)
        step = self.kernel.bind()
        value_and_grad = jax.vmap(jax.value_and_grad(partial(self._energy, args)))

        def move(number: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            state, step_size, _, gradients = carry
            steer = controls_(phase, step_size, number)
            state, info = step(random.fold_in(key, number), state, value_and_grad, steer)
            step_size = learn(phase, step_size, info.acceptance)
            seen = {
                "lp": state.potential,
                "energy": info.energy,
                "acceptance_rate": info.acceptance,
                "diverging": info.diverging,
                "n_steps": info.num_steps.astype(jnp.int32),
                "step_size": steer.step_size.mean(),
            }
            return state, step_size, seen, gradients + info.num_steps.astype(jnp.int32)

        def draw(i: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            *moving, record = carry
            first = index + i * thinning
            moving = lax.fori_loop(first, first + thinning, move, tuple(moving))
            new = {**moving[2], "z": moving[0].position}
            return *moving, jax.tree.map(lambda old, value: old.at[i].set(value), record, new)

        per_chain = jnp.zeros_like(state.potential)
        whole, number = jnp.zeros((), jnp.int32), jnp.zeros((), per_chain.dtype)
        seen = {
            "lp": per_chain,
            "energy": per_chain,
            "acceptance_rate": per_chain,
            "diverging": jnp.zeros(per_chain.shape, bool),
            "n_steps": whole,
            "step_size": number,
        }
        shapes = {**seen, "z": state.position}
        record = jax.tree.map(lambda s: jnp.zeros((self.chunk, *s.shape), s.dtype), shapes)
        carry = (state, jax.tree.map(jnp.asarray, step_size), seen, whole, record)
        state, step_size, _, gradients, record = lax.fori_loop(0, count, draw, carry)
        return state, step_size, {**record, "gradients": gradients}

    # ------------------------------------------------------------------------------- calls

    def _begin(self, key: Array, start: Callable[[int], Any], adaptation: Adaptation) -> HMCState:
        """Return the chains' state at starting points of finite energy and gradient."""
        position, good = start(0), np.zeros(self.num_chains, bool)
        phase = adaptation.phase(0, evaluating=True)
        call = (key, np.int32(0), np.int32(1), np.int32(1))
        self._most, self._called = min(_FIRST_CALL, self.chunk), 0.0
        for attempt in range(1, _TRIES + 1):
            infinite = np.full(self.num_chains, np.inf, self.dtype)
            state = HMCState(jnp.asarray(position), jnp.asarray(infinite), jnp.zeros_like(position))
            state, *_ = self._run(self.args, state, adaptation.step_size, phase, *call)
            good = np.isfinite(state.potential)
            if good.all():
                return state
            position = np.where(good[:, None], position, start(attempt))
        raise ValueError(
            f"No starting point of finite density in {_TRIES} tries: "
            f"{self.first_bad(position[int(np.argmin(good))])}. Check the data against the "
            "supports, or pass an init_strategy."
        )

    def _call(
        self, key: Array, state: Any, adaptation: Adaptation, done: int, left: int, thinning: int
    ) -> tuple[Any, dict[str, np.ndarray], int]:
        """Run the compiled steps once, for about as long as a report; what it found is fetched."""
        count, began = min(left, self._most), time.perf_counter()
        numbers = (np.int32(done), np.int32(count), np.int32(thinning))
        phase = adaptation.phase(done)
        state, adaptation.step_size, found = self._run(
            self.args, state, adaptation.step_size, phase, key, *numbers
        )
        adaptation.source = np.arange(self.num_chains, dtype=np.int32)
        record = {name: np.asarray(value) for name, value in found.items()}
        self._gradients += int(record.pop("gradients"))
        seconds = time.perf_counter() - began
        if seconds < _REPORT_SECONDS:
            self._most = min(2 * self._most, self.chunk)
        elif seconds > 4 * _REPORT_SECONDS:
            self._most = max(1, self._most // 2)
        self._tell("warmup" if done < adaptation.ends[-1] else "sample", record, count, thinning)
        return state, record, count

    def _tell(
        self, phase: str, record: Mapping[str, np.ndarray], count: int, thinning: int
    ) -> None:
        if self._bar.disable:
            return
        size, steps = record["step_size"][count - 1], record["n_steps"][:count].mean()
        rate = record["acceptance_rate"][:count].mean()
        bad = int(record["diverging"][:count].sum())
        self._bar.set_description(phase, refresh=False)
        said = f"step {size:.1e}, {steps:.0f} leapfrogs, acc. {rate:.2f}, {bad} divergences"
        self._bar.set_postfix_str(said, refresh=False)
        self._bar.update(count * thinning * self.num_chains)

    def _statistics(self, kept: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        stats = {name: value for name, value in kept.items() if name != "z"}
        stats["lp"] = -stats["lp"]
        shape = stats["lp"].shape
        for name in ("n_steps", "step_size"):
            stats[name] = np.broadcast_to(stats[name][:, None], shape)
        return {name: np.swapaxes(value, 0, 1) for name, value in stats.items()}
