"""Log evidence from both sides: ELBO, IWAE and annealing from below, reversed from above."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from deepgen_ppl import checks
from deepgen_ppl.annealing import Schedule, cut, downwards, join, staying, upwards
from deepgen_ppl.bounds import Bound, EvidenceBounds, lower_bound, mean_bound, upper_bound
from deepgen_ppl.bridge import check_has
from deepgen_ppl.chains import classic_rhat
from deepgen_ppl.evidence import evidence
from deepgen_ppl.evidence_checks import check_counts, check_simulated, check_start
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.pyro.infer import evaluate
from deepgen_ppl.pyro.infer.annealing import (
    Chains,
    Climb,
    as_posterior,
    parts,
    with_blocks,
)
from deepgen_ppl.pyro.infer.bridge import positions
from deepgen_ppl.pyro.infer.importance import importance
from deepgen_ppl.pyro.infer.pilot import pilot
from deepgen_ppl.pyro.infer.train import mix
from deepgen_ppl.pyro.mixed import MixedPath
from deepgen_ppl.pyro.parameters import forked_rng
from deepgen_ppl.pyro.path import Path, quiet
from deepgen_ppl.pyro.paths import read_any
from deepgen_ppl.pyro.program import simulate as simulate_

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
    start: str = "prior",
    num_particles: int = 5000,
    num_chains: int = 64,
    num_temperatures: int = 1000,
    num_leapfrogs: int = 4,
    discrete: str = "auto",
    batch_size: int | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    progress: bool = True,
    seed: int = 0,
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
        model: A Pyro program.
        guide: A guide, or a `Fit`; None leaves out the ELBO and IWAE.
        *data: Its data, with rows on the leading axis.
        simulate: Whether to bound the evidence of data drawn from the model in place of `data`.
        posterior: Draws of a converged chain at `data` for the approximate upper bound.
        start: Where annealing starts, and reverse annealing ends: at the `"prior"`, or at the
            `"guide"`, which is closer to the posterior, so that fewer temperatures are enough.
        num_particles: Number K of particles of IWAE and of naive Monte Carlo (of each row).
        num_chains: Number of annealed chains each way (of each row).
        num_temperatures: Number of their temperatures.
        num_leapfrogs: Leapfrog steps of a transition.
        discrete: `"sum"` over the discrete latents, `"gibbs"` to draw them, or `"auto"`: see `ais`.
        batch_size: Rows that are annealed together; None chooses as many as fit in memory.
        params: Learned values by name, or a `Fit`; those of `guide` where that is a fit.
        model_kwargs: Constants passed by name to model and guide.
        progress: Whether to show a progress bar.
        seed: Seed of all draws. The user's random state is left alone.

    Returns:
        The table of bounds, and the posterior of annealed importance sampling.

    Raises:
        ValueError: What `ais` raises; with `simulate`, observed sites that are not data arguments
            as they are, or factors, which say nothing of how data are drawn.

    Cost:
        2 num_chains num_temperatures num_leapfrogs gradients and 2 num_particles densities.

    References:
        Grosse, Ghahramani, Adams: Sandwiching the marginal likelihood using bidirectional Monte
        Carlo. 2015. https://arxiv.org/abs/1511.02543

        Wu, Burda, Salakhutdinov, Grosse: On the quantitative analysis of decoder-based generative
        models. 2017. https://arxiv.org/abs/1611.04273

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     mu = pyro.sample("mu", dist.Normal(0, 1))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(mu, 1), obs=x)
        >>> found = evidence_bounds(model, None, np.ones(2), num_temperatures=50, progress=False)
        >>> bool(found.lower.limit < -2.72051 < found.upper.limit)
        True
    """
    check_counts(
        num_particles=num_particles, num_chains=num_chains, num_temperatures=num_temperatures,
        num_leapfrogs=num_leapfrogs, batch_size=batch_size,
    )  # fmt: skip
    check_start(start, guide is not None)
    fit_params, guide = _unfit(guide)
    options: dict[str, Any] = {
        "params": fit_params if params is None else params,
        "model_kwargs": model_kwargs,
    }
    began = time.perf_counter()
    reading: dict[str, Any] = {**options, "verb": "evidence_bounds", "seed": seed}
    reading |= {"discrete": discrete, "guide": guide if start == "guide" else None}
    path, about = read_any(model, *data, **reading)
    exact = None
    if simulate:
        data, exact = _simulated(path, mix(seed, 14))
        path, about = read_any(model, *data, **reading)
    bounds = _below(model, guide, data, num_particles, batch_size, mix(seed, 15), options)
    starts = None if exact is None else {n: v[None] for n, v in exact.items()}
    if posterior is not None and starts is None:
        starts = _starts(path, posterior, num_chains)
    annealed = with_blocks(
        path,
        mix(seed, 19),
        lambda table: _anneal(path, table, mix(seed, 16), starts, num_chains, num_temperatures,
                              num_leapfrogs, batch_size, progress),
    )  # fmt: skip
    size = f"{num_chains} chains x {num_temperatures}"
    size = f" from the guide, {size}" if start == "guide" else f", {size}"
    costs = [f"{seconds:.1f} s, {_short(count)} gradients" for seconds, count in annealed.spent]
    bounds.append(lower_bound(f"AIS{size}", annealed.log_weights, cost=costs[0]))
    assumes = _assumption(exact is not None, posterior is not None, num_chains, annealed.rhat)
    bounds.append(
        upper_bound(f"reverse AIS{size}", annealed.downwards, cost=costs[1],
                    approximate=exact is None, assumes=assumes)
    )  # fmt: skip
    found = EvidenceBounds(tuple(bounds), None, path.rows, data if simulate else None)
    method = "annealed importance sampling"
    drawn = as_posterior(
        path, annealed.draws, "ais", began,
        log_weights=annealed.log_weights[None],
        evidence=evidence(annealed.log_weights, rows=path.rows, method=method),
        attrs={"num_temperatures": num_temperatures, **annealed.attrs, **about, **found.attrs()},
    )  # fmt: skip
    return replace(found, posterior=drawn)


class Annealed(NamedTuple):
    """Chains that went up, and chains that went down.

    Attributes:
        log_weights: Log weights of those, `(K,)` or `(K, N)`.
        downwards: Log weights of these.
        draws: The first ones' last states, by site.
        attrs: How it went.
        rhat: Worst R-hat of the chains before they went down.
        spent: Seconds and gradients of both ways.
        discrepancy: That of the sweeps over discrete coordinates, as of `Climbed`.
    """

    log_weights: np.ndarray
    downwards: np.ndarray
    draws: dict[str, np.ndarray]
    attrs: dict[str, Any]
    rhat: float
    spent: tuple[tuple[float, int], tuple[float, int]]
    discrepancy: float


def _below(
    model: Callable, guide: Any, data: tuple, num_particles: int, batch_size: int | None,
    seed: int, options: Mapping[str, Any],
) -> list[Bound]:  # fmt: skip
    """Return the bounds from independent particles."""

    def weigh(guide: Any, seed: int) -> tuple[np.ndarray, str]:
        began = time.perf_counter()
        found = importance(model, guide, *data, num_particles=num_particles, keep_draws=False,
                           batch_size=batch_size, seed=seed, **options).log_weights  # fmt: skip
        cost = f"{time.perf_counter() - began:.1f} s, {_short(num_particles)} particles"
        return np.asarray(found)[0], cost

    log_w, cost = weigh(None, mix(seed, 0))
    bounds = [lower_bound("naive Monte Carlo", log_w, cost=cost)]
    if guide is not None:
        log_w, cost = weigh(guide, mix(seed, 1))
        bounds.append(mean_bound("ELBO", log_w, cost=cost))
        bounds.append(lower_bound(f"IWAE-{num_particles}", log_w, cost="the same particles"))
    return bounds


def _anneal(
    path: Path | MixedPath, table: Any, seed: int, starts: Mapping[str, np.ndarray] | None,
    num_chains: int, num_temperatures: int, num_leapfrogs: int, batch_size: int | None,
    progress: bool,
) -> Annealed:  # fmt: skip
    """Anneal chains both ways, rows after rows."""
    chunks = list(parts(path, num_chains, batch_size))
    up, down, draws, rhats, spent, worst = [], [], [], [], np.zeros((2, 2)), 0.0
    with (
        tqdm(total=len(chunks) * 2 * num_temperatures, disable=not progress) as bar,
        evaluate.few_threads(path.numbers * num_chains // len(chunks)),
    ):
        for number, (part, used) in enumerate(chunks):
            climb = Climb(part, num_leapfrogs, bar.update, table)
            generator = torch.Generator(path.device).manual_seed(mix(seed, number))
            began = time.perf_counter()
            schedule = pilot(climb, generator).refine(num_temperatures)
            chains = climb.begin(generator, num_chains)
            chains, _ = climb.run(generator, chains, upwards(schedule))
            turned, counted = time.perf_counter(), climb.gradients
            own = _positions(path, starts, part.index, num_chains)
            settled, rhat = _settle(climb, generator, chains, own, schedule)
            back, _ = climb.run(generator, settled, downwards(schedule), backwards=True)
            ended = time.perf_counter()
            for kept, weights in ((up, chains.log_weights), (down, back.log_weights)):
                found = weights.cpu().numpy()
                kept.append(found if path.rows is None else found[:, :used])
            draws.append(cut(part.constrain(chains.position), path.row_axes, used))
            rhats.append(rhat)
            spent += ((turned - began, counted), (ended - turned, climb.gradients - counted))
            worst = max(worst, climb.discrepancy)
    first, second = (p[0] if path.rows is None else np.concatenate(p, axis=1) for p in (up, down))
    sums = tuple((float(seconds), int(count)) for seconds, count in spent)
    attrs = {"compiled": chunks[0][0].compiled, "compiled_reason": chunks[0][0].reason}
    return Annealed(
        first, second, join(draws, path.row_axes), attrs, max(rhats), (sums[0], sums[1]), worst
    )


def _settle(
    climb: Climb,
    generator: torch.Generator,
    chains: Chains,
    starts: Tensor | None,
    schedule: Schedule,
) -> tuple[Chains, float]:
    """Return draws of the posterior to anneal from, and how well the chains agree on them.

    They begin at given draws, or at the ends of chains that went up, in proportion to their
    weights, and make transitions of the posterior: those that begin at one exact draw move apart
    and remain exact.
    """
    at = climb.resample(generator, chains, 1)[0] if starts is None else climb.at(starts)
    tell, climb.tell, seen = climb.tell, lambda count: None, []
    for _ in range(_LOOKS):
        at, _ = climb.run(generator, at, staying(schedule, _APART // _LOOKS))
        seen.append(at.position.cpu().double().numpy())
    climb.tell = tell
    return at, float(classic_rhat(np.stack(seen[_LOOKS // 2 :], axis=1)).max())


def _positions(
    path: Path | MixedPath, starts: Mapping[str, np.ndarray] | None, index: Tensor | None, num: int
) -> Tensor | None:
    """Return as many positions of given draws as there are chains."""
    if starts is None:
        return None
    z = positions(path, {name: value[None] for name, value in starts.items()})[0]
    z = z if index is None else np.take(z, index.cpu().numpy(), axis=1)
    return torch.as_tensor(z[np.arange(num) % len(z)], device=path.device)


def _starts(path: Path | MixedPath, posterior: Posterior, num: int) -> dict[str, np.ndarray]:
    """Return draws of a posterior that are far apart, as many as there are chains or fewer."""
    check_has(posterior.draws, path.sites)
    flat = posterior.resample().flat()
    size = len(flat[path.sites[0]])
    chosen = np.linspace(0, size - 1, min(num, size)).round().astype(int)
    return {name: flat[name][chosen] for name in path.sites}


def _simulated(path: Path | MixedPath, seed: int) -> tuple[tuple, dict[str, np.ndarray]]:
    """Return data drawn from the model in the place of given ones, and the latents behind them."""
    model, data = path.pair.model, path.data
    with quiet(path.pair), torch.no_grad(), forked_rng(seed):
        observed = simulate_(model, path.params, data, redraw=(), stand_in=True)
        drawn = simulate_(model, path.params, data)
    where: dict[str, int] = {}
    for name in model.observed:
        for i, value in enumerate(data):
            same = isinstance(value, Tensor) and value.shape == observed[name].shape
            if same and torch.equal(value, observed[name].to(value)):
                where.setdefault(name, i)
    check_simulated(list(model.observed), list(where), list(model.factors))
    fresh = list(data)
    for name, i in where.items():
        fresh[i] = drawn[name].to(data[i])
    return tuple(fresh), {name: drawn[name].cpu().numpy() for name in path.sites}


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
    from deepgen_ppl.pyro.infer.fit import Fit

    if isinstance(guide, Fit):
        return guide.params, guide.guide
    checks.check_guide(guide)
    return None, guide


def _short(count: int) -> str:
    return f"{count:,}" if count < 100_000 else f"{count:.1e}".replace("e+0", "e")
