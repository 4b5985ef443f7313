"""Importance sampling: log evidence and weighted draws from any guide, per datum if it can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array

from deepgen_ppl import checks
from deepgen_ppl.evidence import evidence, resample
from deepgen_ppl.loop import explained
from deepgen_ppl.numpyro import marginal
from deepgen_ppl.numpyro.compilation import build_of, compiled
from deepgen_ppl.numpyro.probes import check_rows_independent, points
from deepgen_ppl.numpyro.program import (
    Inputs,
    Pair,
    Weights,
    as_key,
    learned,
    log_weights,
    read_pair,
)

if TYPE_CHECKING:
    from deepgen_ppl.numpyro.infer.fit import Fit
    from deepgen_ppl.posterior import Posterior

_CHUNK_NUMBERS = 1 << 24
"""Numbers (of 4 bytes) that the intermediate values of one chunk may take, roughly."""


def importance(
    model: Callable,
    guide: Callable | None = None,
    *data: Any,
    num_particles: int = 1000,
    batch_size: int | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    keep_draws: bool = True,
    num_draws: int | None = None,
    seed: int | Array = 0,
) -> Posterior:
    r"""Estimate the log evidence and weigh draws from a guide.

    $$\log \hat p(x) = \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k)}, \qquad z_k \sim q$$

    Discrete latents of finite support that the guide lacks are summed out by enumeration.
    Where every latent is local to the data plate and changing one row's data moves no other row's
    weight (both are checked), each datum has its own K weights, and so its own log evidence and
    Pareto k; otherwise the K weights are those of the whole data.

    Args:
        model: a NumPyro model.
        guide: any guide; None draws from the prior.
        *data: arrays whose leading axis is the data axis, scalars or None.
        num_particles: number K of draws.
        batch_size: rows of a chunk; None chooses one.
        params: learned values by name, or a `Fit`.
        model_kwargs: constants passed by name to model and guide.
        keep_draws: False returns the evidence and the weights without draws.
        num_draws: keep this many Pareto-smoothed equally weighted draws instead of all K raw ones
            with their weights, for data of many rows.
        seed: int or random key.

    Returns:
        The weighted draws and the evidence with its standard error, ESS and Pareto k.

    Raises:
        KeyboardInterrupt: Ctrl-C, saying how far it was.
        ValueError: bad data, sites that do not match, parameters without a value,
            values of parameters that neither model nor guide has, a guide that is a point (MAP),
            NaN weights.

    Cost:
        K passes over the data in chunks of bounded memory; beside it K x N weights and the draws.
        One chunk is compiled, 1-3 s, the first time these functions see these shapes.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry: Pareto smoothed importance sampling. 2024.
        https://arxiv.org/abs/1507.02646

    Example:
        >>> import numpy as np, numpyro, numpyro.distributions as dist
        >>> def model(x):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("x", dist.Normal(mu, 1), obs=x)
        >>> found = importance(model, None, np.ones(2), num_particles=4000)
        >>> bool(abs(found.evidence.log_evidence - -2.72051) < 5 * found.evidence.standard_error)
        True
    """
    checks.check_particles(num_particles, batch_size)
    values = learned(params)
    pair = read_pair(
        model, guide, data, model_kwargs=model_kwargs, params=values, seed=seed, prior=True,
        enumerated=True,
    )  # fmt: skip
    check_learned(pair, values)
    inputs, key = pair.inputs(data), as_key(seed)
    if pair.enumerated:
        marginal.prepare(pair.model, values, inputs, needed=False)
    checks.check_points(points(pair, values, inputs, key))
    by_row = pair.local and check_rows_independent(pair, values, inputs, random.fold_in(key, 1))
    sampler = _Sampler(pair, values, inputs, num_particles, keep_draws, by_row)
    with explained("importance", lambda: sampler.done) as sampler.check:
        log_w, draws, stats = (
            sampler.rows(key, batch_size, num_draws) if by_row else sampler.whole(key, num_draws)
        )
    row_dim = pair.model.data_plates[0] if by_row else None
    found = evidence(log_w, rows=row_dim)
    weights = None if num_draws is not None else log_w[None]
    return _posterior(pair, values, data, draws, "importance", log_weights=weights,
                      evidence=found, row_dim=row_dim, stats=stats)  # fmt: skip


def draw_guide(
    model: Callable,
    guide: Callable | None,
    *data: Any,
    num_samples: int = 1000,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    seed: int | Array = 0,
) -> Posterior:
    """Draw from a fitted guide: equally weighted draws with "lp" and "log_q"."""
    values = learned(params)
    pair = read_pair(
        model, guide, data, model_kwargs=model_kwargs, params=values, seed=seed, enumerated=True
    )
    check_learned(pair, values)
    sampler = _Sampler(pair, values, pair.inputs(data), num_samples, True, False)
    _, draws, stats = sampler.whole(as_key(seed), None)
    return _posterior(pair, values, data, draws, "svi", stats=stats)


def judge_guide(
    fit: Fit, data: tuple, num_particles: int, seed: int, num_rows: int = 200
) -> tuple[np.ndarray | None, str | None]:
    """Return log weights under a fit's guide, of at most `num_rows` rows, and the plate's name.

    There are none under a guide that is a point.
    """
    pair = read_pair(
        fit.model, fit.guide, data, model_kwargs=fit.model_kwargs, params=fit.params, prior=True,
        enumerated=True,
    )  # fmt: skip
    inputs, key = pair.inputs(data), as_key(seed)
    if points(pair, fit.params, inputs, key):
        return None, None
    by_row = pair.local and check_rows_independent(pair, fit.params, inputs, random.fold_in(key, 1))
    sampler = _Sampler(pair, fit.params, inputs, num_particles, False, by_row)
    if not by_row:
        return sampler.whole(key, None)[0], None
    chosen = np.linspace(0, inputs.num_rows - 1, min(num_rows, inputs.num_rows)).astype(int)
    return sampler.rows(key, None, None, chosen)[0], pair.model.data_plates[0]


def check_learned(pair: Pair, values: Mapping[str, Any]) -> None:
    """Refuse to run a program whose parameters have no learned value, or not under these names.

    Without a guide the values may be those of one, as in a `Fit`.

    Raises:
        ValueError: naming them.
    """
    needed = [*pair.params, *(name for program in pair.programs for name in program.state)]
    missing = [name for name in dict.fromkeys(needed) if name not in values]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing)
        raise ValueError(
            f"no learned value for {names}. Pass params= a Fit, or a dict of values by name."
        )
    if pair.guide is not None:
        fixed = [name for program in pair.programs for name in program.fixed]
        checks.check_known(values, dict.fromkeys([*needed, *fixed]))


class _Sampler:
    """Draws and weighs in chunks whose intermediate values fit in memory."""

    def __init__(self, pair: Pair, values: Mapping[str, Any], inputs: Inputs, num_particles: int,
                 keep_draws: bool, by_row: bool) -> None:  # fmt: skip
        self.pair, self.values, self.inputs = pair, dict(values), inputs
        self.num_particles, self.keep_draws, self.by_row = num_particles, keep_draws, by_row
        sizes = [int(np.prod(site.shape)) for site in pair.model.sites.values()]
        sizes += [int(np.prod(site.shape)) for p in pair.programs[1:] for site in p.sites.values()]
        self.build = build_of(pair)
        unit = f"{inputs.num_rows} rows" if by_row else f"{num_particles} particles"
        self.done, self.check = f"0 of {unit}", lambda: None
        self.numbers = 8 * sum(sizes) + 1  # of one particle; layers of networks counted roughly

    def _reached(self, done: str) -> None:
        """Say how far it is, and end where Ctrl-C was pressed."""
        self.done = done
        self.check()

    def rows(self, key: Array, batch_size: int | None, num_draws: int | None,
             chosen: np.ndarray | None = None) -> tuple[np.ndarray, dict, dict]:  # fmt: skip
        """Return log weights (K, N) and draws, row chunk by row chunk."""
        size = self.inputs.num_rows
        chosen = np.arange(size) if chosen is None else chosen
        per_row = self.numbers / size
        length = batch_size or int(np.clip(_CHUNK_NUMBERS / per_row / 64, 1, 128))
        length = min(length, len(chosen))
        count = int(np.clip(_CHUNK_NUMBERS / (per_row * length), 1, self.num_particles))

        def chunk(inputs: Inputs, values: Any, rows: Array, keys: Array) -> tuple[Array, Any]:
            def one(key: Array) -> tuple[Array, Any]:
                weights = log_weights(self.pair, values, inputs, rows, key=key)
                return weights.rows, weights.latents if self.keep_draws else {}

            return jax.vmap(one)(keys)

        parts, kept = [], []
        for start in range(0, len(chosen), length):
            self._reached(f"{start} of {len(chosen)} rows")
            rows = chosen[np.minimum(np.arange(start, start + length), len(chosen) - 1)]
            used = min(length, len(chosen) - start)
            keys = random.split(random.fold_in(key, start), self.num_particles)
            found = self._particles(chunk, keys, count, jnp.asarray(rows))
            log_w = found[0][:, :used]
            draws = {n: self._cut(n, v, used) for n, v in found[1].items()}
            if num_draws is not None:
                picked = resample(log_w, num_draws, seed=start)
                draws = {n: self._pick(n, v, picked) for n, v in draws.items()}
            parts.append(log_w)
            kept.append(draws)
        draws = {
            name: np.concatenate([part[name] for part in kept], axis=self._axis(name))[None]
            for name in kept[0]
        }
        return np.concatenate(parts, axis=1), draws, {}

    def whole(self, key: Array, num_draws: int | None) -> tuple[np.ndarray, dict, dict]:
        """Return log weights (K,), draws and statistics of the whole data."""
        count = int(np.clip(_CHUNK_NUMBERS / self.numbers, 1, self.num_particles))

        def chunk(inputs: Inputs, values: Any, rows: None, keys: Array) -> tuple[Array, Any]:
            def one(key: Array) -> tuple[Array, Any]:
                weights: Weights = log_weights(self.pair, values, inputs, rows, key=key)
                draws = {**weights.latents, **weights.deterministic} if self.keep_draws else {}
                return jnp.stack([weights.total, weights.log_q]), draws

            return jax.vmap(one)(keys)

        keys = random.split(key, self.num_particles)
        found, draws = self._particles(chunk, keys, count, None)
        log_w, log_q = found[:, 0], found[:, 1]
        stats = {}
        if self.pair.guide is not None:
            stats = {"lp": (log_w + log_q)[None], "log_q": log_q[None]}
        if num_draws is not None:
            picked = resample(log_w, num_draws)
            draws = {name: value[picked] for name, value in draws.items()}
            stats = {name: value[:, picked] for name, value in stats.items()}
        return log_w, {name: value[None] for name, value in draws.items()}, stats

    def _particles(self, chunk: Callable, keys: Array, count: int, rows: Any) -> tuple[Any, dict]:
        parts = []
        args = (self.inputs, self.values, rows)
        static = (self.keep_draws, self.by_row)
        run = compiled(self.build, "weights", chunk, *args, keys[:count], static=static)
        for start in range(0, self.num_particles, count):
            index = np.minimum(np.arange(start, start + count), self.num_particles - 1)
            used = min(count, self.num_particles - start)
            if rows is None:
                self._reached(f"{start} of {self.num_particles} particles")
            found = jax.device_get(run(*args, keys[index]))
            parts.append(jax.tree.map(lambda leaf, used=used: leaf[:used], found))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def _axis(self, name: str) -> int:
        plates = self.pair.model.sites[name].plates
        return 1 + next(i for i, p in enumerate(plates) if p in self.pair.model.data_plates)

    def _cut(self, name: str, value: np.ndarray, used: int) -> np.ndarray:
        return np.take(value, np.arange(used), axis=self._axis(name))

    def _pick(self, name: str, value: np.ndarray, picked: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(value, self._axis(name), 1)
        taken = moved[picked, np.arange(moved.shape[1])]
        return np.moveaxis(taken, 1, self._axis(name))


def _posterior(pair: Pair, values: Mapping[str, Any], data: tuple, draws: dict[str, np.ndarray],
               method: str, row_dim: str | None = None, **parts: Any) -> Posterior:  # fmt: skip
    from deepgen_ppl.numpyro.infer.evaluate import fields
    from deepgen_ppl.posterior import Posterior

    row_axis = {}
    if row_dim is not None:
        row_axis = {name: pair.model.sites[name].plates.index(row_dim) for name in draws}
    about = fields(pair.model, values, data)
    return Posterior(
        draws, method=method, row_dim=row_dim, row_axis=row_axis, independent=True, **about, **parts
    )
