"""Importance sampling: log evidence and weighted draws from any guide, per datum if it can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import checks
from deepgen_ppl.evidence import evidence, resample
from deepgen_ppl.loop import explained
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers, marginal
from deepgen_ppl.pyro.infer.train import mix
from deepgen_ppl.pyro.parameters import forked_rng, given, preserved, private_store, resolve
from deepgen_ppl.pyro.probes import check_rows_independent, points
from deepgen_ppl.pyro.program import Pair, particles, read_pair

if TYPE_CHECKING:
    from deepgen_ppl.posterior import Posterior
    from deepgen_ppl.pyro.infer.fit import Fit

_CHUNK_NUMBERS = 1 << 24
"""Numbers (of 4 bytes) that the intermediate values of one chunk may take, roughly."""


def importance(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    *data: Any,
    num_particles: int = 1000,
    batch_size: int | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    keep_draws: bool = True,
    num_draws: int | None = None,
    seed: int = 0,
) -> Posterior:
    r"""Estimate the log evidence and weigh draws from a guide.

    $$\log \hat p(x) = \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k)}, \qquad z_k \sim q$$

    Discrete latents of finite support that the guide lacks are summed out by enumeration.
    Where every latent is local to the data plate and changing one row's data moves no other row's
    weight (both are checked), each datum has its own K weights, and so its own log evidence and
    Pareto k; otherwise the K weights are those of the whole data.

    Args:
        model: a Pyro model.
        guide: any guide; None draws from the prior.
        *data: arrays whose leading axis is the data axis, scalars or None.
        num_particles: number K of draws.
        batch_size: rows of a chunk; None chooses one.
        params: learned values by name, or a `Fit`; None takes the modules and the param store as
            they are.
        model_kwargs: constants passed by name to model and guide.
        keep_draws: False returns the evidence and the weights without draws.
        num_draws: keep this many Pareto-smoothed equally weighted draws instead of all K raw ones
            with their weights, for data of many rows.
        seed: seed of the draws.

    Returns:
        The weighted draws and the evidence with its standard error, ESS and Pareto k.

    Raises:
        KeyboardInterrupt: Ctrl-C, saying how far it was.
        ValueError: bad data, sites that do not match, parameters without a value,
            values of parameters that neither model nor guide has, a guide that is a point (MAP),
            NaN weights.

    Cost:
        K passes over the data in chunks of bounded memory, vectorised where the program allows it;
        beside it K x N weights and the draws.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry: Pareto smoothed importance sampling. 2024.
        https://arxiv.org/abs/1507.02646

    Example:
        >>> import numpy as np, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     mu = pyro.sample("mu", dist.Normal(0, 1))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(mu, 1), obs=x)
        >>> found = importance(model, None, np.ones(2), num_particles=4000)
        >>> bool(abs(found.evidence.log_evidence - -2.72051) < 5 * found.evidence.standard_error)
        True
    """
    checks.check_particles(num_particles, batch_size)
    pair, values, tensors = prepare(
        model, guide, data, params, model_kwargs, seed, prior=True, enumerated=True
    )
    checks.check_points(_points(pair, values, tensors, seed))
    by_row = pair.local and _independent(pair, values, tensors, seed)
    if pair.enumerated and not by_row:
        marginal.prepare(pair.model, values, tensors, needed=False)
    sampler = _Sampler(pair, values, tensors, num_particles, keep_draws, by_row)
    with explained("importance", lambda: sampler.done) as sampler.check:
        log_w, draws, stats = (
            sampler.rows(seed, batch_size, num_draws) if by_row else sampler.whole(seed, num_draws)
        )
    row_dim = pair.model.data_plates[0] if by_row else None
    found = evidence(log_w, rows=row_dim)
    weights = None if num_draws is not None else log_w[None]
    return _posterior(pair, values, tensors, draws, "importance", log_weights=weights,
                      evidence=found, row_dim=row_dim, stats=stats)  # fmt: skip


def draw_guide(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    *data: Any,
    num_samples: int = 1000,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Posterior:
    """Draw from a fitted guide: equally weighted draws with "lp" and "log_q"."""
    pair, values, tensors = prepare(model, guide, data, params, model_kwargs, seed, enumerated=True)
    sampler = _Sampler(pair, values, tensors, num_samples, True, False)
    _, draws, stats = sampler.whole(seed, None)
    return _posterior(pair, values, tensors, draws, "svi", stats=stats)


def judge_guide(
    fit: Fit, data: tuple, num_particles: int, seed: int, num_rows: int = 200
) -> tuple[np.ndarray | None, str | None]:
    """Return log weights under a fit's guide, of at most `num_rows` rows, and the plate's name.

    There are none under a guide that is a point.
    """
    pair, values, tensors = prepare(
        fit.model, fit.guide, data, fit.params, fit.model_kwargs, seed, prior=True, enumerated=True
    )
    if _points(pair, values, tensors, seed):
        return None, None
    by_row = pair.local and _independent(pair, values, tensors, seed)
    sampler = _Sampler(pair, values, tensors, num_particles, False, by_row)
    if not by_row:
        return sampler.whole(seed, None)[0], None
    size = pair.num_rows or 1
    chosen = np.linspace(0, size - 1, min(num_rows, size)).astype(int)
    return sampler.rows(seed, None, None, chosen)[0], pair.model.data_plates[0]


def prepare(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: tuple,
    params: Any,
    model_kwargs: Mapping[str, Any] | None,
    seed: int,
    **options: Any,
) -> tuple[Pair, dict[str, Tensor], tuple[Any, ...]]:
    """Read model and guide; return them with the values of their parameters and the data."""
    learned = given(params)
    pair = read_pair(
        model, guide, data, model_kwargs=model_kwargs, params=learned, seed=seed, **options
    )
    if guide is not None and params is not None:
        checks.check_known(learned or {}, pair.params)
    device = data_.device_of(pair.modules)
    return pair, resolve(pair.params, learned), data_.to_tensors(data, device)


def _points(pair: Pair, values: dict[str, Tensor], data: tuple, seed: int) -> list[str]:
    with handlers.validation(False):
        return points(pair, values, data, mix(seed, 3))


def _independent(pair: Pair, values: dict[str, Tensor], data: tuple, seed: int) -> bool:
    with handlers.validation(False):
        return check_rows_independent(pair, values, data, mix(seed, 1))


class _Sampler:
    """Draws and weighs in chunks whose intermediate values fit in memory."""

    def __init__(self, pair: Pair, values: Mapping[str, Tensor], data: tuple, num_particles: int,
                 keep_draws: bool, by_row: bool) -> None:  # fmt: skip
        self.pair, self.values, self.data = pair, dict(values), data
        self.num_particles, self.keep_draws, self.by_row = num_particles, keep_draws, by_row
        sizes = [int(np.prod(site.shape)) for p in pair.programs for site in p.sites.values()]
        unit = f"{pair.num_rows or 1} rows" if by_row else f"{num_particles} particles"
        self.done, self.check = f"0 of {unit}", lambda: None
        self.numbers = 8 * sum(sizes) + 1  # of one particle; layers of networks counted roughly

    def _reached(self, done: str) -> None:
        """Say how far it is, and end where Ctrl-C was pressed."""
        self.done = done
        self.check()

    def rows(self, seed: int, batch_size: int | None, num_draws: int | None,
             chosen: np.ndarray | None = None) -> tuple[np.ndarray, dict, dict]:  # fmt: skip
        """Return log weights (K, N) and draws, row chunk by row chunk."""
        size = self.pair.num_rows or 1
        chosen = np.arange(size) if chosen is None else chosen
        per_row = self.numbers / size
        length = batch_size or int(np.clip(_CHUNK_NUMBERS / per_row / 64, 1, 128))
        length = min(length, len(chosen))
        count = int(np.clip(_CHUNK_NUMBERS / (per_row * length), 1, self.num_particles))
        parts, kept = [], []
        for start in range(0, len(chosen), length):
            self._reached(f"{start} of {len(chosen)} rows")
            rows = torch.as_tensor(chosen[start : start + length])
            log_w, _, draws = self._particles(mix(seed, 2, start), count, rows)
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

    def whole(self, seed: int, num_draws: int | None) -> tuple[np.ndarray, dict, dict]:
        """Return log weights (K,), draws and statistics of the whole data."""
        count = int(np.clip(_CHUNK_NUMBERS / self.numbers, 1, self.num_particles))
        log_w, log_q, draws = self._particles(mix(seed, 2), count, None)
        stats = {}
        if log_q is not None:
            stats = {"lp": (log_w + log_q)[None], "log_q": log_q[None]}
        if num_draws is not None:
            picked = resample(log_w, num_draws)
            draws = {name: value[picked] for name, value in draws.items()}
            stats = {name: value[:, picked] for name, value in stats.items()}
        return log_w, {name: value[None] for name, value in draws.items()}, stats

    def _particles(
        self, seed: int, count: int, rows: Tensor | None
    ) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
        """Return log weights, log densities of the guide and draws of all particles."""
        log_w, log_q, draws = [], [], []
        with (
            torch.no_grad(),
            private_store(),
            handlers.validation(False),
            preserved(self.pair.modules),
            forked_rng(seed),
        ):
            for start in range(0, self.num_particles, count):
                used = min(count, self.num_particles - start)
                if rows is None:
                    self._reached(f"{start} of {self.num_particles} particles")
                w = particles(self.pair, self.values, self.data, rows, used)
                log_w.append((w.rows if self.by_row else w.total).cpu().numpy())
                log_q += [] if w.log_q is None else [w.log_q.cpu().numpy()]
                fixed = {} if self.by_row else w.deterministic
                kept = {**w.latents, **fixed} if self.keep_draws else {}
                draws.append({name: value.cpu().numpy() for name, value in kept.items()})
        joined = {name: np.concatenate([part[name] for part in draws]) for name in draws[0]}
        return np.concatenate(log_w), np.concatenate(log_q) if log_q else None, joined

    def _axis(self, name: str) -> int:
        plates = self.pair.model.sites[name].plates
        return 1 + next(i for i, p in enumerate(plates) if p in self.pair.model.data_plates)

    def _pick(self, name: str, value: np.ndarray, picked: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(value, self._axis(name), 1)
        taken = moved[picked, np.arange(moved.shape[1])]
        return np.moveaxis(taken, 1, self._axis(name))


def _posterior(pair: Pair, values: Mapping[str, Tensor], data: tuple, draws: dict[str, np.ndarray],
               method: str, row_dim: str | None = None, **parts: Any) -> Posterior:  # fmt: skip
    from deepgen_ppl.posterior import Posterior
    from deepgen_ppl.pyro.infer.evaluate import fields

    row_axis = {}
    if row_dim is not None:
        row_axis = {name: pair.model.sites[name].plates.index(row_dim) for name in draws}
    about = fields(pair.model, values, data)
    return Posterior(
        draws, method=method, row_dim=row_dim, row_axis=row_axis, independent=True, **about, **parts
    )
