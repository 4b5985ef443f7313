"""Log evidence from both sides: ELBO, IWAE and annealing from below, reversed from above."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from tqdm.auto import tqdm

from deepgen_ppl import checks
from deepgen_ppl.annealing import Schedule, downwards, staying, upwards
from deepgen_ppl.bounds import Bound, EvidenceBounds, lower_bound, mean_bound, upper_bound
from deepgen_ppl.bridge import check_has
from deepgen_ppl.chains import classic_rhat
from deepgen_ppl.evidence import evidence
from deepgen_ppl.evidence_checks import check_counts, check_simulated
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.infer.annealing import (
    Chains,
    Climb,
    as_posterior,
    cut,
    join,
    parts,
    pilot,
)
from deepgen_ppl.numpyro.infer.bridge import positions
from deepgen_ppl.numpyro.infer.importance import importance
from deepgen_ppl.numpyro.path import Path, read_path
from deepgen_ppl.numpyro.program import simulate as simulate_
from deepgen_ppl.posterior import Posterior

_APART = 100
"""Transitions by which chains of one exact draw move apart, and others settle."""
_LOOKS = 20
"""Times at which chains are looked at while they do so."""


def evidence_bounds(
    model: Callable[..., Any],
    guide: Any = None,
    *data: Any,
    simulate: bool = False,
    posterior: Posterior | None = None,
    num_particles: int = 5000,
    num_chains: int = 64,
    num_temperatures: int = 1000,
    num_leapfrogs: int = 4,
    batch_size: int | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    progress: bool = True,
    seed: int | Array = 0,
) -> EvidenceBounds:
    r"""Bound the log evidence from below and from above, with limits of 95% confidence.

    From below, in expectation: naive Monte Carlo from the prior, the ELBO and IWAE-K of the guide,
    and annealed importance sampling. From above: annealing backwards, from a draw of the posterior
    down to the prior, whose weights have \(\mathbb E\, w^{-1} = 1 / p(x)\), so that

    \[ \log \hat p_\text{AIS}(x) \;\lesssim\; \log p(x) \;\lesssim\; -\log \frac1K \sum_k
       \frac1{w_k^\text{reverse}}. \]

    With `simulate=True` the data are drawn anew from the model, with the shapes of `data`: then the
    latents they were drawn with are an exact draw of the posterior (bidirectional Monte Carlo), and
    only then is the second one called an upper bound. On data of your own it begins at draws of
    `posterior`, or of chains that annealing leaves at the posterior, and is an approximate upper
    bound: the table says what it assumes. Where every latent is local to the data plate and rows do
    not touch each other, each datum has its bounds, and totals are shown.

    Args:
        model: A NumPyro program with continuous latents; discrete ones of finite support are summed
            out.
        guide: A guide, or a `Fit`; None leaves out the ELBO and IWAE.
        *data: Its data, with rows on the leading axis.
        simulate: Whether to bound the evidence of data drawn from the model in place of `data`.
        posterior: Draws of a converged chain at `data` for the approximate upper bound.
        num_particles: Number K of particles of IWAE and of naive Monte Carlo (of each row).
        num_chains: Number of annealed chains each way (of each row).
        num_temperatures: Number of their temperatures.
        num_leapfrogs: Leapfrog steps of a transition.
        batch_size: Rows that are annealed together; None chooses as many as fit in memory.
        params: Learned values by name, or a `Fit`; those of `guide` where that is a fit.
        model_kwargs: Constants passed by name to model and guide.
        progress: Whether to show a progress bar.
        seed: An int or a random key.

    Returns:
        The table of bounds, and the posterior of annealed importance sampling.

    Raises:
        ValueError: What `ais` raises; with `simulate`, observed sites that are not data arguments
            as they are, or factors, which say nothing of how data are drawn.

    Cost:
        2 num_chains num_temperatures (num_leapfrogs + 1) gradients and 2 num_particles densities.

    References:
        Grosse, Ghahramani, Adams: Sandwiching the marginal likelihood using bidirectional Monte
        Carlo. 2015. https://arxiv.org/abs/1511.02543

        Wu, Burda, Salakhutdinov, Grosse: On the quantitative analysis of decoder-based generative
        models. 2017. https://arxiv.org/abs/1611.04273

    Example:
        >>> import numpy as np, numpyro, numpyro.distributions as dist
        >>> def model(x):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("x", dist.Normal(mu, 1), obs=x)
        >>> found = evidence_bounds(model, None, np.ones(2), num_temperatures=50, progress=False)
        >>> bool(found.lower.limit < -2.72051 < found.upper.limit)
        True
    """
    check_counts(
        num_particles=num_particles, num_chains=num_chains, num_temperatures=num_temperatures,
        num_leapfrogs=num_leapfrogs, batch_size=batch_size,
    )  # fmt: skip
    fit_params, guide = _unfit(guide)
    options: dict[str, Any] = {
        "params": fit_params if params is None else params,
        "model_kwargs": model_kwargs,
    }
    key, began = as_key(seed), time.perf_counter()
    path = read_path(model, *data, verb="evidence_bounds", seed=seed, **options)
    exact = None
    if simulate:
        data, exact = _simulated(path, data, random.fold_in(key, 0))
        path = read_path(model, *data, verb="evidence_bounds", seed=seed, **options)
    bounds = _below(model, guide, data, num_particles, batch_size, random.fold_in(key, 1), options)
    starts = None if exact is None else {n: v[None] for n, v in exact.items()}
    if posterior is not None and starts is None:
        starts = _starts(path, posterior, num_chains)
    annealed = _anneal(path, random.fold_in(key, 2), starts, exact is not None, num_chains,
                       num_temperatures, num_leapfrogs, batch_size, progress)  # fmt: skip
    size = f"{num_chains} chains x {num_temperatures}"
    up = f"{annealed.seconds[0]:.1f} s, {_short(annealed.gradients[0])} gradients"
    down = f"{annealed.seconds[1]:.1f} s, {_short(annealed.gradients[1])} gradients"
    bounds.append(lower_bound(f"AIS, {size}", annealed.upwards, cost=up))
    assumes = _assumption(exact is not None, posterior is not None, num_chains, annealed.rhat)
    bounds.append(
        upper_bound(f"reverse AIS, {size}", annealed.downwards, cost=down,
                    approximate=exact is None, assumes=assumes)
    )  # fmt: skip
    found = EvidenceBounds(tuple(bounds), None, path.rows, data if simulate else None)
    method = "annealed importance sampling"
    drawn = as_posterior(
        path, data, annealed.draws, "ais", began,
        log_weights=annealed.upwards[None],
        evidence=evidence(annealed.upwards, rows=path.rows, method=method),
        attrs={"num_temperatures": num_temperatures, **found.attrs()},
    )  # fmt: skip
    return replace(found, posterior=drawn)


class Annealed(NamedTuple):
    """Chains that went up, and chains that went down.

    Attributes:
        upwards: Log weights of those, `(K,)` or `(K, N)`.
        downwards: Log weights of these.
        draws: The first ones' last states, by site.
        rhat: Worst R-hat of the chains before they went down.
        seconds: Time of both ways.
        gradients: Gradients of both ways.
    """

    upwards: np.ndarray
    downwards: np.ndarray
    draws: dict[str, np.ndarray]
    rhat: float
    seconds: tuple[float, float]
    gradients: tuple[int, int]


def _below(
    model: Callable, guide: Any, data: tuple, num_particles: int, batch_size: int | None,
    key: Array, options: Mapping[str, Any],
) -> list[Bound]:  # fmt: skip
    """Return the bounds from independent particles."""

    def weigh(guide: Any, key: Array) -> tuple[np.ndarray, str]:
        began = time.perf_counter()
        found = importance(model, guide, *data, num_particles=num_particles, keep_draws=False,
                           batch_size=batch_size, seed=key, **options).log_weights  # fmt: skip
        cost = f"{time.perf_counter() - began:.1f} s, {_short(num_particles)} particles"
        return np.asarray(found)[0], cost

    keys = random.split(key)
    log_w, cost = weigh(None, keys[0])
    bounds = [lower_bound("naive Monte Carlo", log_w, cost=cost)]
    if guide is not None:
        log_w, cost = weigh(guide, keys[1])
        bounds.append(mean_bound("ELBO", log_w, cost=cost))
        bounds.append(lower_bound(f"IWAE-{num_particles}", log_w, cost="the same particles"))
    return bounds


def _anneal(
    path: Path, key: Array, starts: Mapping[str, np.ndarray] | None, exact: bool, num_chains: int,
    num_temperatures: int, num_leapfrogs: int, batch_size: int | None, progress: bool,
) -> Annealed:  # fmt: skip
    """Anneal chains both ways, rows after rows."""
    chunks = list(parts(path, num_chains, batch_size))
    up, down, draws, rhats, spent = [], [], [], [], np.zeros((2, 2))
    with tqdm(total=len(chunks) * 2 * num_temperatures, disable=not progress) as bar:
        for number, (index, used) in enumerate(chunks):
            climb = Climb(path, num_leapfrogs, index, bar.update)
            keys = random.split(random.fold_in(key, number), 5)
            began = time.perf_counter()
            schedule = pilot(climb, keys[0], num_chains=num_chains).refine(num_temperatures)
            chains, _ = climb.run(keys[2], climb.begin(keys[1], num_chains), upwards(schedule))
            turned, counted = time.perf_counter(), climb.gradients
            own = _positions(path, starts, index, num_chains, keys[3])
            settled, rhat = _settle(climb, keys[3], chains, own, schedule)
            back, _ = climb.run(keys[4], climb.at(settled), downwards(schedule))
            ended = time.perf_counter()
            for kept, weights in ((up, chains.log_weights), (down, back.log_weights)):
                kept.append(np.asarray(weights)[:, :used] if path.rows else np.asarray(weights))
            draws.append(cut(path, climb.constrain(chains.position), used))
            rhats.append(rhat)
            spent += ((turned - began, ended - turned), (counted, climb.gradients - counted))
    table = [np.concatenate(p, axis=1) if path.rows else p[0] for p in (up, down)]
    worst = float("nan") if exact else max(rhats)
    (up_seconds, down_seconds), (up_count, down_count) = spent.tolist()
    return Annealed(
        table[0], table[1], join(path, draws), worst,
        (up_seconds, down_seconds), (int(up_count), int(down_count)),
    )  # fmt: skip


def _settle(
    climb: Climb, key: Array, chains: Chains, starts: Array | None, schedule: Schedule
) -> tuple[Array, float]:
    """Return draws of the posterior to anneal from, and how well the chains agree on them.

    They begin at given draws, or at the ends of chains that went up, in proportion to their
    weights, and make transitions of the posterior: those that begin at one exact draw move apart
    and remain exact.
    """
    if starts is None:
        starts = climb.resample(random.fold_in(key, 0), chains, 1)[0].position
    at, seen = climb.at(starts), []
    tell, climb.tell = climb.tell, lambda count: None
    for look in range(_LOOKS):
        moves = staying(schedule, _APART // _LOOKS)
        at, _ = climb.run(random.fold_in(key, look + 1), at, moves, look * len(moves[0]))
        seen.append(np.asarray(at.position))
    climb.tell = tell
    return at.position, float(classic_rhat(np.stack(seen[_LOOKS // 2 :], axis=1)).max())


def _positions(
    path: Path, starts: Mapping[str, np.ndarray] | None, index: Array | None, num: int, key: Array
) -> Array | None:
    """Return as many positions of given draws as there are chains."""
    if starts is None:
        return None
    z = positions(path, {name: value[None] for name, value in starts.items()})[0]
    z = np.take(z, np.asarray(index), axis=1) if index is not None else z
    return jnp.asarray(z[np.arange(num) % len(z)])


def _starts(path: Path, posterior: Posterior, num: int) -> dict[str, np.ndarray]:
    """Return draws of a posterior that are far apart, as many as there are chains or fewer."""
    continuous = [n for n, site in path.pair.model.latents.items() if not site.is_discrete]
    check_has(posterior.draws, continuous)
    flat = posterior.resample().flat()
    size = len(flat[continuous[0]])
    chosen = np.linspace(0, size - 1, min(num, size)).round().astype(int)
    return {name: flat[name][chosen] for name in continuous}


def _simulated(path: Path, data: tuple, key: Array) -> tuple[tuple, dict[str, np.ndarray]]:
    """Return data drawn from the model in the place of given ones, and the latents behind them."""
    model = path.pair.model
    observed = simulate_(model, path.params, path.inputs, key, redraw=(), stand_in=True)
    where: dict[str, int] = {}
    for name in model.observed:
        for i, value in enumerate(data):
            same = value is not None and np.shape(value) == np.shape(observed[name])
            if same and np.array_equal(np.asarray(value), np.asarray(observed[name])):
                where.setdefault(name, i)
    check_simulated(list(model.observed), list(where), list(model.factors))
    drawn = jax.device_get(simulate_(model, path.params, path.inputs, key))
    fresh = list(data)
    for name, i in where.items():
        fresh[i] = drawn[name].astype(np.asarray(data[i]).dtype)
    latents = {n: drawn[n] for n, site in model.latents.items() if not site.is_discrete}
    return tuple(fresh), latents


def _assumption(exact: bool, given: bool, num_chains: int, rhat: float) -> str:
    if exact:
        return (
            f"starts at the one exact draw of the posterior that made the data, from which "
            f"{num_chains} chains moved apart by {_APART} transitions"
        )
    told = f"R-hat {rhat:.3f} after {_APART} transitions of {num_chains} chains"
    told += "" if rhat < 1.1 else ": NOT converged, so this is no bound"
    source = "draws of the posterior that was given" if given else "the ends of annealed chains"
    return f"assumes that its starts, {source}, are draws of the posterior: {told}"


def _unfit(guide: Any) -> tuple[Any, Any]:
    from deepgen_ppl.numpyro.infer.fit import Fit

    if isinstance(guide, Fit):
        return guide.params, guide.guide
    checks.check_guide(guide)
    return None, guide


def _short(count: int) -> str:
    return f"{count:,}" if count < 100_000 else f"{count:.1e}".replace("e+0", "e")
