"""The chains that a contrastive run keeps: how they set out, move and are watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float, Int

from deepgen_ppl import energy_checks
from deepgen_ppl import energy_monitors as monitors
from deepgen_ppl.loop import NonFiniteError
from deepgen_ppl.numpyro.compilation import compiled, kept, quickly
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.infer.fit import Fit
from deepgen_ppl.numpyro.infer.negative import OwnChains, Sampler
from deepgen_ppl.numpyro.infer.phases import (
    Phases,
)
from deepgen_ppl.numpyro.infer.program_chains import ProgramChains
from deepgen_ppl.numpyro.infer.step import batch_key
from deepgen_ppl.numpyro.infer.tempered_chains import Tuning

_SMOOTHING = 0.1
_LONGER = 10
CHAINS = "negative chains"


class Pool(NamedTuple):
    """All chains that are kept, and what is watched of them.

    Attributes:
        state: state of the sampler.
        rows: data row of each chain.
        age: updates since each chain set out.
        mean: running mean of each chain's centred log density.
        square: running mean of its square.
        tuning: what their moves are steered by, as the logarithm of the step size.
        number: updates done.
        watched: smoothed energies and acceptance.
        hidden: state of the chains on hidden sites given the data, of all rows; or None.
        hidden_step: logarithm of their step size.
    """

    state: Any
    rows: Int[Array, " chain"]
    age: Int[Array, " chain"]
    mean: Float[Array, " chain"]
    square: Float[Array, " chain"]
    tuning: Any
    number: Int[Array, ""]
    watched: dict[str, Array]
    hidden: Any
    hidden_step: Float[Array, ""]


@dataclass
class Run:
    """A run of contrastive training: the loss, the chains, and what may be asked of both."""

    model: Callable[..., Any]
    phases: Phases
    chains: Sampler
    given: ProgramChains | None
    positive: Callable[..., Any]
    batch_size: int | None
    by_row: bool
    options: Any = None
    build: Any = None

    def begin(self, values: Mapping[str, Any], inputs: Inputs, key: Array) -> None:
        """Let the chains set out."""
        num_rows, options = max(inputs.num_rows, 1), self.options
        size = options.buffer_size
        if not options.persistent:
            size = self.batch_size or num_rows
        elif self.by_row:
            size = num_rows
        rng = np.random.default_rng(np.asarray(random.key_data(key), np.uint32).tolist())
        copies = 1 if self.by_row or not options.persistent else monitors.COPIES
        rows = np.arange(num_rows)
        if not self.by_row:
            groups = -(-size // copies)
            chosen = rng.permutation(num_rows) if groups <= num_rows else rng.integers(
                num_rows, size=groups)  # fmt: skip
            rows = np.repeat(chosen[:groups], copies)[:size]
        rows = jnp.asarray(rows, jnp.int32)
        own = jax.tree.map(jnp.asarray, dict(values))
        at_data = options.start == "data"
        start = partial(self.chains.start, at_data=at_data)
        state = kept(self.build, "start", start, random.fold_in(key, 5), own, inputs, rows)
        zeros = jnp.zeros(size)
        hidden = None
        if self.phases.positive == "sampled":
            assert self.given is not None
            everyone = jnp.arange(num_rows, dtype=jnp.int32)
            start = partial(self.given.start, at_data=False)
            about = random.fold_in(key, 6), own, inputs, everyone
            hidden = kept(self.build, "hidden", start, *about)
        names = ("energy_data", "energy_chains", "energy_width", "acceptance", "discrepancy")
        self.scale = self._scale(own, inputs)
        pool = Pool(
            state, rows, jnp.zeros(size, jnp.int32), zeros, zeros,
            jax.tree.map(jnp.asarray, self.chains.tuning), jnp.int32(0),
            {name: jnp.zeros(()) for name in names}, hidden,
            jnp.asarray(0.0 if self.given is None else self.given.tuning),
        )  # fmt: skip
        self.state = {CHAINS: pool}

    def _scale(self, values: Mapping[str, Any], inputs: Inputs) -> float:
        """Return the root mean square of the data where chains live."""
        if not self.chains.is_continuous:
            return 0.0
        count = max(inputs.num_rows, 1)
        rows = jnp.asarray(np.linspace(0, count - 1, min(count, 512)).astype(np.int32))

        def place(key: Array, params: Any, inputs: Inputs, rows: Array) -> Array:
            return self.chains.place(self.chains.start(key, params, inputs, rows, True))

        about = random.key(0), values, inputs, rows
        found = np.asarray(kept(self.build, "place", place, *about), float)
        return float(np.sqrt(np.mean(found**2)))

    @property
    def same_kind(self) -> float:
        """One where data and chains have energies of the same kind, else not a number.

        They differ where hidden units are summed out or bounded for the data, not for the chains.
        """
        if isinstance(self.chains, OwnChains):
            return 1.0 if self.chains.counts_visible else float("nan")
        own = isinstance(self.chains, ProgramChains)
        return float("nan") if own and self.phases.positive in ("exact", "guide") else 1.0

    # ----------------------------------------------------------------------------- the loss

    def loss(
        self, free: Any, mutable: Any, inputs: Inputs, rows: Any, key: Array
    ) -> tuple[Array, Any]:
        """Return energies of the data less those of the chains, times the rows; and the chains."""
        pair, pool = self.phases.pair, mutable[CHAINS]
        state = {n: v for n, v in mutable.items() if n != CHAINS}
        params = {**pair.constrain(free), **lax.stop_gradient(state)}
        held = lax.stop_gradient(params)
        keys = random.split(key, 4)
        count = max(inputs.num_rows, 1)
        if self.phases.positive == "sampled":
            pool, data, changed = self._sampled(params, held, pool, inputs, rows, keys[0])
        else:
            total, changed = self.positive(params, inputs, rows, keys[0])
            data = total / count
        moved = self._advance(held, pool, inputs, rows, keys[1])
        chosen, chain_rows, index, pool, rate, worst = moved
        log_probs = self.chains.log_prob(params, inputs, chain_rows, lax.stop_gradient(chosen))
        pool = self._remember(pool, index, lax.stop_gradient(log_probs))
        loss = data + jnp.mean(log_probs)
        seen = {
            "energy_data": data,
            "energy_chains": -jnp.mean(log_probs),
            "energy_width": jnp.std(log_probs) * self.same_kind,
            "acceptance": jnp.mean(rate),
            "discrepancy": worst,
        }
        share = jnp.where(pool.number == 0, 1.0, _SMOOTHING)
        watched = {
            n: (1 - share) * old + share * lax.stop_gradient(seen[n])
            for n, old in pool.watched.items()
        }
        pool = pool._replace(watched=watched, number=pool.number + 1)
        return count * loss, {**mutable, **changed, CHAINS: pool}

    def _sampled(
        self, params: Any, held: Any, pool: Pool, inputs: Inputs, rows: Any, key: Array
    ) -> tuple[Pool, Array, dict]:
        """Draw the hidden sites of the batch by chains that go on from batch to batch."""
        assert self.given is not None
        index = jnp.arange(max(inputs.num_rows, 1), dtype=jnp.int32) if rows is None else rows
        own = jax.tree.map(lambda leaf: leaf[index], pool.hidden)
        found = self.given.move(
            key, held, inputs, index, own, pool.hidden_step, self.options.chain_steps
        )
        data = -jnp.mean(self.given.log_prob(params, inputs, index, lax.stop_gradient(found.state)))
        hidden = jax.tree.map(lambda whole, part: whole.at[index].set(part), pool.hidden,
                              found.state)  # fmt: skip
        return pool._replace(hidden=hidden, hidden_step=found.tuning), data, {}

    def _advance(
        self, held: Any, pool: Pool, inputs: Inputs, rows: Any, key: Array
    ) -> tuple[Any, Array, Array | None, Pool, Array, Array]:
        """Move the chains that are due; their index is None where all are."""
        options, keys = self.options, random.split(key, 5)
        size = pool.rows.shape[0]
        index = None
        if not options.persistent:
            batch = pool.rows if rows is None else rows
            state = self.chains.start(keys[0], held, inputs, batch, options.start == "data")
            pool = pool._replace(state=state, rows=batch.astype(jnp.int32))
        elif self.by_row:
            index = rows
        elif size > options.num_chains:
            index = random.permutation(keys[0], size)[: options.num_chains]
        take = (lambda leaf: leaf) if index is None else (lambda leaf: leaf[index])
        chain_rows, age, state = take(pool.rows), take(pool.age), jax.tree.map(take, pool.state)
        if options.restart and options.persistent:
            fresh = self.chains.start(keys[1], held, inputs, chain_rows, False)
            anew = random.bernoulli(keys[2], options.restart, chain_rows.shape)
            state = jax.tree.map(lambda a, b: _where(anew, a, b), fresh, state)
            age = jnp.where(anew, 0, age)
        found = self.chains.move(
            keys[3], held, inputs, chain_rows, state, pool.tuning, options.chain_steps
        )
        pool = _put(pool, index, state=found.state, age=age + 1)
        pool = pool._replace(tuning=found.tuning)
        return found.state, chain_rows, index, pool, found.acceptance, found.discrepancy

    def _remember(self, pool: Pool, index: Array | None, log_probs: Array) -> Pool:
        """Keep the running moments of the chains that moved."""
        take = (lambda leaf: leaf) if index is None else (lambda leaf: leaf[index])
        centred = log_probs - jnp.mean(log_probs)
        share = jnp.maximum(monitors.RATE, 1.0 / take(pool.age))
        mean = (1 - share) * take(pool.mean) + share * centred
        square = (1 - share) * take(pool.square) + share * centred**2
        return _put(pool, index, mean=mean, square=square)

    # -------------------------------------------------------------------------- afterwards

    def short_run(self, params: Mapping[str, Any], inputs: Inputs, pool: Pool, key: Array) -> float:
        """Return how far chains from the base end from the kept ones' energies, in deviations."""

        def both(params: Any, inputs: Inputs, pool: Pool, key: Array) -> tuple[Array, Array]:
            begun = self.chains.start(key, params, inputs, pool.rows, False)
            steps = _LONGER * self.options.chain_steps
            found = self.chains.move(
                random.fold_in(key, 1), params, inputs, pool.rows, begun, pool.tuning, steps
            )
            fresh = self.chains.log_prob(params, inputs, pool.rows, found.state)
            return fresh, self.chains.log_prob(params, inputs, pool.rows, pool.state)

        found = kept(self.build, "short run", both, params, inputs, pool, key)
        fresh, old = (np.asarray(x, float) for x in found)
        width = max(float(old.std()), 1e-12)
        return float((fresh.mean() - old.mean()) / width)

    def blame(self, fit: Fit, result: Any, inputs: Inputs, key: Array) -> NonFiniteError:
        """Return the error of the step that failed, naming the first chain that is not finite."""
        pool, params = result.mutable[CHAINS], jax.tree.map(jnp.asarray, fit.params)
        rows = None if result.rows is None else jnp.asarray(result.rows)
        noise = random.split(batch_key(random.fold_in(key, 1), result.failed), 4)

        def end(params: Any, pool: Pool, inputs: Inputs, rows: Any, noise: Array) -> Array:
            chosen, chain_rows, *_ = self._advance(params, pool, inputs, rows, noise)
            return self.chains.log_prob(params, inputs, chain_rows, chosen)

        log_prob = np.asarray(quickly(end, params, pool, inputs, rows, noise[1]))
        bad = np.flatnonzero(~np.isfinite(log_prob))
        chain = int(bad[0]) if bad.size else None
        return energy_checks.non_finite_energy(result.failed, chain, result.rows, fit)


class Watch:
    """What is watched at every report: numbers for the history."""

    def __init__(self, run: Run, inputs: Inputs) -> None:
        self.run, self.inputs = run, inputs
        self.before: Any = None
        self.spread = 0.0

    def __call__(self, free: Any, mutable: Any) -> dict[str, float]:
        """Return what is watched at present."""
        run = self.run
        before, self.before = self.before, (free, mutable)
        args = (free, mutable), before or (free, mutable), self.inputs
        told = jax.device_get(compiled(run.build, "watch", self._look, *args)(*args))
        found = {name: float(value) for name, value in told["numbers"].items()}
        found["chain_age"] *= run.options.persistent
        mean, square = np.asarray(told["mean"], float), np.asarray(told["square"], float)
        steady = run.options.persistent and not run.by_row and told["youngest"] >= 50
        rhat = monitors.nested_rhat(mean, np.maximum(square - mean**2, 0.0)) if steady else np.nan
        found["chain_rhat"] = rhat
        self.spread = found["chain_spread"] = found["chain_spread"] / (run.scale or np.inf)
        if before is None:
            found["log_z_drift"] = float("nan")
        return found

    def _look(self, now: Any, before: Any, inputs: Inputs) -> dict[str, Any]:
        """Compute what is watched, of the present and of the last report's parameters and chains.

        Log Z changed by the mean of the ratio of densities at some chains as they were then.
        """
        (free, mutable), (_, past) = now, before
        pool, old = mutable[CHAINS], past[CHAINS]
        at = [self._params(*pair) for pair in (now, before)]
        few = monitors.some(old.rows.shape[0])
        rows, state = old.rows[few], jax.tree.map(lambda leaf: leaf[few], old.state)
        log_probs = [self.run.chains.log_prob(own, inputs, rows, state) for own in at]
        gain = log_probs[0] - log_probs[1]
        place = self.run.chains.place(pool.state)
        numbers = {
            **pool.watched,
            "weight_norm": jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(free))),
            "chain_age": jnp.mean(pool.age),
            "chain_spread": jnp.sqrt(jnp.mean(place**2)) if place.size else jnp.zeros(()),
            "log_z_drift": jax.nn.logsumexp(gain) - jnp.log(float(gain.shape[0])),
        }
        if isinstance(pool.tuning, Tuning):
            numbers["swap_acceptance"] = 1.0 - jnp.max(pool.tuning.spacing.rejections)
        return {"numbers": numbers, "youngest": pool.age.min(), "mean": pool.mean,
                "square": pool.square}  # fmt: skip

    def _params(self, free: Any, mutable: Any) -> dict[str, Any]:
        own = {n: v for n, v in mutable.items() if n != CHAINS}
        return {**self.run.phases.pair.constrain(free), **own}


def _put(pool: Pool, index: Array | None, **new: Any) -> Pool:
    """Write what is new of some chains, of all without an index."""
    if index is not None:
        old = {name: getattr(pool, name) for name in new}
        new = jax.tree.map(lambda whole, part: whole.at[index].set(part), old, new)
    return pool._replace(**new)


def _where(chosen: Array, a: Array, b: Array) -> Array:
    return jnp.where(chosen.reshape(chosen.shape + (1,) * (a.ndim - 1)), a, b)
