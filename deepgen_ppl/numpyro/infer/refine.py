"""Semi-amortized inference: each datum's own parameters, beginning at what the encoder gives."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float

from deepgen_ppl import refinement
from deepgen_ppl.numpyro.compilation import Build, build_of, compiled
from deepgen_ppl.numpyro.handlers import freed
from deepgen_ppl.numpyro.infer.fit import Fit
from deepgen_ppl.numpyro.infer.importance import check_learned
from deepgen_ppl.numpyro.objectives.elbo import particles, score
from deepgen_ppl.numpyro.parts import local_latents, propose, weigh
from deepgen_ppl.numpyro.probes import check_rows_independent, points
from deepgen_ppl.numpyro.program import Inputs, as_key, learned, log_weights, read_pair

Tables = dict[str, Array]

CHUNK = 256
"""Rows that step together."""
_DECAYS = (0.9, 0.999)
_EPSILON = 1e-8
_AT_ONCE = 50  # draws of the bounds


def refine(
    model: Callable,
    guide: Callable,
    fit: Any,
    *data: Any,
    num_steps: int | None = None,
    max_steps: int = 5000,
    num_particles: int = 8,
    learning_rate: float = 0.05,
    tolerance: float = 0.005,
    batch_size: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    seed: int | Array = 0,
) -> Fit:
    r"""Refine the posterior of each datum within the guide's family, from the encoder's output.

    $$\lambda_n = g(x_n) + \delta_n, \qquad
      \delta_n = \arg\max_\delta \mathbb E_{q(z; g(x_n) + \delta)}
      \bigl[\log p(x_n, z) - \log q(z; g(x_n) + \delta)\bigr]$$

    where \(\lambda_n\) are the unconstrained parameters of the distributions that the guide draws
    from in the data plate, and everything learned is held. The steps are Adam's, for all rows of
    a chunk at once, with the path gradient of the bound where draws carry gradients. Rows that end
    up worse than they began keep the encoder's output.

    Args:
        model: a NumPyro model whose latents stand in the data plate.
        guide: its guide.
        fit: a `Fit`, or its `params`.
        *data: the data, seen in training or not.
        num_steps: number of steps; None goes on until each row has settled, see `tolerance`.
        max_steps: steps after which rows that have not settled stay as they are.
        num_particles: draws of each row a step.
        learning_rate: step size at first, in units of the unconstrained parameters.
        tolerance: nats that 50 steps must gain a row; where they do not, its steps are made
            shorter, and where that no longer helps either it has settled.
        batch_size: rows that step together.
        model_kwargs: constants passed by name to model and guide.
        seed: int or random key.

    Returns:
        A fit whose guide adds each datum's own parameters, tables "own_SITE_PARAMETER" among its
        `params`, to the old one: for `importance`, `predict` and the like on the same data.
        `history` tells of each row whether it has "settled", its "bound" and its "encoder_bound".

    Raises:
        ValueError: latents that are shared between rows, rows that touch each other, options out
            of range, a parameter without a value.
        TypeError: a distribution that cannot be made anew from parameters of each datum.

    Cost:
        `num_particles` passes over the rows a step, compiled once for all chunks.

    References:
        Kim, Wiseman, Miller, Sontag, Rush: Semi-amortized variational autoencoders. ICML 2018.
        https://arxiv.org/abs/1802.02550
        Roeder, Wu, Duvenaud: Sticking the landing. 2017. https://arxiv.org/abs/1703.09194

    Example:
        >>> import numpy as np, numpyro, numpyro.distributions as dist
        >>> def model(x):
        ...     with numpyro.plate("data", len(x)):
        ...         z = numpyro.sample("z", dist.Normal(0, 1))
        ...         numpyro.sample("x", dist.Normal(z, 0.5), obs=x)
        >>> def guide(x):
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("z", dist.Normal(0.5 * x, 1.0))
        >>> found = refine(model, guide, {}, np.array([1.0, -2.0]))
        >>> bool(abs(0.5 + found.params["own_z_loc"][0] - 0.8) < 0.01)
        True
    """
    refinement.check_options(
        num_steps, max_steps, num_particles, learning_rate, tolerance, batch_size
    )
    refiner = Refiner("refine", model, guide, fit, data, model_kwargs, seed)
    options = Options(num_steps, max_steps, num_particles, learning_rate, tolerance, batch_size)
    return refiner.fit(data, options)


class Options(NamedTuple):
    """Options of a refinement, see `refine`."""

    num_steps: int | None = None
    max_steps: int = 5000
    num_particles: int = 8
    learning_rate: float = 0.05
    tolerance: float = 0.005
    batch_size: int | None = None


class Refiner:
    """A pair whose guide has parameters of each datum, and what refines them.

    Args:
        verb: name of the verb, for errors.
        model: the model.
        guide: the guide.
        fit: a `Fit`, or its `params`.
        data: the data.
        model_kwargs: constants passed by name to both.
        seed: int or random key.

    Attributes:
        plain: the pair as it is.
        guide: the guide with parameters of each datum.
        shapes: shapes of these, by name.
    """

    def __init__(
        self,
        verb: str,
        model: Callable,
        guide: Callable,
        fit: Any,
        data: tuple,
        model_kwargs: Mapping[str, Any] | None,
        seed: int | Array,
    ) -> None:
        refinement.check_fit(verb, fit)
        values = learned(fit)
        read: dict[str, Any] = {"model_kwargs": model_kwargs, "enumerated": True, "seed": seed}
        self.plain = read_pair(model, guide, data, params=values, **read)
        latents = local_latents(self.plain)
        refinement.check_refinable(verb, guide is not None, self.plain.local, latents)
        check_learned(self.plain, values)
        self.values, self.kwargs, self.key = values, dict(model_kwargs or {}), as_key(seed)
        self.seed, self.model, self.inputs = seed, model, self.plain.inputs(data)
        refinement.check_points(verb, points(self.plain, values, self.inputs, self.key))
        independent = check_rows_independent(self.plain, values, self.inputs, self.key)
        refinement.check_independent(verb, independent)
        self.guide = freed(guide, data_plates=self.plain.data_plates)
        pair = read_pair(model, self.guide, data, params=values, **read)
        assert pair.guide is not None and self.plain.guide is not None
        known = pair.guide.params.keys() - self.plain.guide.params.keys()
        self.names = [name for name in pair.guide.params if name in known]
        refinement.check_kept(self.names)
        self.shapes = {name: pair.guide.params[name] for name in self.names}
        self.axes = {name: pair.guide.tables.get(name, 0) for name in self.names}
        # Their rows come as they are, not gathered from tables of all rows.
        tables = {name: axis for name, axis in pair.guide.tables.items() if name not in known}
        self.pair = pair._replace(guide=dataclasses.replace(pair.guide, tables=tables))
        free = [site.reparametrised for site in pair.guide.latents.values()]
        self.follows = all(free) and not pair.enumerated

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.inputs.num_rows

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers that each datum has by itself, and parameters of the guide."""
        assert self.plain.guide is not None
        own = sum(int(np.prod(shape.shape)) for shape in self.shapes.values())
        shared = jax.tree.leaves(self.plain.guide.params)
        return own // self.num_rows, sum(int(np.prod(leaf.shape)) for leaf in shared)

    def fit(self, data: tuple, options: Options) -> Fit:
        """Refine all rows and return the fit."""
        began = time.perf_counter()
        build = build_of(self.plain, "refined")
        length = min(options.batch_size or CHUNK, self.num_rows)
        tables, losses, told = [], [], []
        for start in range(0, self.num_rows, length):
            rows = np.minimum(np.arange(start, start + length), self.num_rows - 1)
            used = min(length, self.num_rows - start)
            own, loss, about = self._chunk(build, jnp.asarray(rows), used, options)
            tables.append(own)
            losses.append((used, loss))
            told.append(about)
        params = {
            name: np.concatenate([part[name] for part in tables], self.axes[name])
            for name in self.names
        }
        history = {name: np.concatenate([part[name] for part in told]) for name in told[0]}
        return Fit(
            params=jax.device_get({**self.values, **params}),
            losses=refinement.joined_losses(losses),
            history=history,
            seconds=time.perf_counter() - began - build.seconds,
            compile_seconds=build.seconds,
            model=self.model,
            guide=self.guide,
            seed=self.seed,
            data=data,
            model_kwargs=self.kwargs,
        )

    def _chunk(
        self, build: Build, rows: Array, used: int, options: Options
    ) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
        """Step until the rows have settled; return tables, losses, and what is told of each row."""
        size, key = len(rows), random.fold_in(self.key, int(rows[0]))
        length = options.num_steps or refinement.WINDOW
        own = {name: self._zeros(name, size) for name in self.names}
        state = State(own, own, own, jnp.zeros((), int))
        rule = refinement.Settling(size, options.learning_rate, options.tolerance)
        bounds = []
        while sum(map(len, bounds)) < (options.num_steps or options.max_steps):
            rates = jnp.asarray(rule.rates, float)
            args = (self.inputs, self.values, state, rows, rates, random.fold_in(key, 0))
            static = (length, options.num_particles, self.follows)
            run = compiled(build, "window", self._window(length, options.num_particles), *args,
                           static=static)  # fmt: skip
            state, mean, found = run(*args)
            bounds.append(np.asarray(found)[:, :used])
            if options.num_steps is not None:
                break
            new = jnp.asarray(rule.heard(np.asarray(found)))
            kept = {n: self._choose(n, new, mean[n], state.own[n]) for n in self.names}
            state = state._replace(own=kept)
            if rule.settled[:used].all():
                break
        own, about = self._judged(build, state.own, rows, random.fold_in(key, 1))
        about["settled"] = rule.settled
        cut = {n: np.take(np.asarray(own[n]), np.arange(used), self.axes[n]) for n in self.names}
        losses = -np.concatenate(bounds).mean(1)
        return cut, losses, {name: value[:used] for name, value in about.items()}

    def _window(self, length: int, num_particles: int) -> Callable[..., Any]:
        """Return steps of Adam, the mean of the parameters over them, and the bounds they saw."""

        def run(inputs: Inputs, values: Any, state: State, rows: Array, rates: Array, key: Array):
            def step(carry: tuple[State, Tables], key: Array) -> tuple[Any, Array]:
                state, total = carry
                loss = self._loss(inputs, values, rows, key, num_particles)
                grads, bound = jax.grad(loss, has_aux=True)(state.own)
                state = self._adam(state, grads, rates)
                return (state, jax.tree.map(jnp.add, total, state.own)), bound

            keys = random.split(key, length)
            zeros = jax.tree.map(jnp.zeros_like, state.own)
            (state, total), bounds = lax.scan(step, (state, zeros), keys)
            return state, jax.tree.map(lambda leaf: leaf / length, total), bounds

        return run

    def _loss(
        self, inputs: Inputs, values: Any, rows: Array, key: Array, num_particles: int
    ) -> Callable[[Tables], tuple[Array, Array]]:
        """Return the negative bound of a chunk of rows, as a function of their own parameters."""

        def loss(own: Tables) -> tuple[Array, Array]:
            here = {**values, **own}
            if not self.follows:
                found = particles(self.pair, here, inputs, rows, key, num_particles)
                found = found._replace(scale=1.0)
                bound = jnp.mean(found.rows, axis=0)
                extra = score(self.pair, found) if self.pair.scored else 0.0
                return -jnp.sum(bound) - extra, lax.stop_gradient(bound)

            def draw(key: Array) -> Array:
                draws, _ = propose(self.pair, here, inputs, rows, key)
                return weigh(self.pair, here, draws, inputs, rows, key)[0]

            bound = jnp.mean(jax.vmap(draw)(random.split(key, num_particles)), axis=0)
            return -jnp.sum(bound), lax.stop_gradient(bound)

        return loss

    def _adam(self, state: State, grads: Tables, rates: Float[Array, " B"]) -> State:
        count = state.count + 1
        one, two = _DECAYS
        mean = jax.tree.map(lambda m, g: one * m + (1 - one) * g, state.mean, grads)
        square = jax.tree.map(lambda v, g: two * v + (1 - two) * g * g, state.square, grads)
        own = {}
        for name, value in state.own.items():
            rate = self._raised(name, rates)
            ahead = jnp.sqrt(square[name] / (1 - two**count)) + _EPSILON
            own[name] = value - rate * mean[name] / (1 - one**count) / ahead
        return State(own, mean, square, count)

    def _judged(
        self, build: Build, own: Tables, rows: Array, key: Array
    ) -> tuple[Tables, dict[str, np.ndarray]]:
        """Return the parameters of rows that are better for them, and the bounds of each row."""
        before, after = self.bounds(build, own, rows, key, refinement.PARTICLES)
        better = jnp.asarray(after.mean(0) > before.mean(0))
        kept = {n: self._choose(n, better, own[n], jnp.zeros_like(own[n])) for n in self.names}
        refined = np.maximum(before.mean(0), after.mean(0))
        return kept, {"encoder_bound": before.mean(0), "bound": refined}

    def bounds(
        self, build: Build, own: Tables, rows: Array, key: Array, num_particles: int
    ) -> tuple[Float[np.ndarray, "K B"], Float[np.ndarray, "K B"]]:
        """Return log weights under the encoder's output and refined, of the same random numbers.

        Args:
            build: keeps what is compiled.
            own: parameters of each of the rows.
            rows: the rows.
            key: random key.
            num_particles: number K of draws.
        """

        def run(inputs: Inputs, values: Any, own: Tables, rows: Array, keys: Array) -> Array:
            def draw(key: Array) -> Array:
                return log_weights(self.pair, {**values, **own}, inputs, rows, key=key).rows

            return jax.vmap(draw)(keys)

        # One after the other: two batches of triangular systems in one compiled function may wait
        # for each other's threads for ever.
        keys, weights = random.split(key, num_particles), []
        for tables in (jax.tree.map(jnp.zeros_like, own), own):
            parts = []
            for start in range(0, num_particles, _AT_ONCE):
                index = np.minimum(np.arange(start, start + _AT_ONCE), num_particles - 1)
                args = (self.inputs, self.values, tables, rows, keys[index])
                found = compiled(build, "bounds", run, *args, static=self.follows)(*args)
                parts.append(np.asarray(found)[: num_particles - start])
            weights.append(np.concatenate(parts))
        return weights[0], weights[1]

    def rows_of(self, params: Mapping[str, Any], rows: Array) -> Tables:
        """Return the parameters of some rows from tables of all."""
        return {n: jnp.take(jnp.asarray(params[n]), rows, axis=self.axes[n]) for n in self.names}

    def _zeros(self, name: str, size: int) -> Array:
        shape = list(self.shapes[name].shape)
        shape[self.axes[name]] = size
        return jnp.zeros(shape, self.shapes[name].dtype)

    def _raised(self, name: str, rows: Array) -> Array:
        behind = len(self.shapes[name].shape) - 1 - self.axes[name]
        return rows.reshape(-1, *(1,) * behind)

    def _choose(self, name: str, rows: Array, one: Array, other: Array) -> Array:
        return jnp.where(self._raised(name, rows), one, other)


class State(NamedTuple):
    """Parameters of each datum, with Adam's moments and count."""

    own: Tables
    mean: Tables
    square: Tables
    count: Array
