"""Sequential Monte Carlo: particles climb to the posterior and are resampled on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax import Array, random
from tqdm.auto import tqdm

from deepgen_ppl.annealing import Climbed, Moves, Schedule, cut, join, of_islands, upwards
from deepgen_ppl.evidence_checks import check_counts, check_fraction
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.infer.annealing import (
    Chains,
    Climb,
    as_posterior,
    parts,
    with_blocks,
)
from deepgen_ppl.numpyro.infer.pilot import pilot
from deepgen_ppl.numpyro.mixed import MixedPath
from deepgen_ppl.numpyro.path import Path
from deepgen_ppl.numpyro.paths import read_any
from deepgen_ppl.posterior import Posterior


# BlackJAX's adaptive_tempered_smc chooses temperatures from the particles whose weights it then
# averages, which biases the estimate, moves one population without rows or islands, and takes one
# setting of its kernel for all temperatures; so the climb of `ais` is used instead.
def smc(
    model: Callable[..., Any],
    *data: Any,
    guide: Any = None,
    num_particles: int = 1024,
    num_islands: int = 8,
    num_moves: int = 2,
    num_leapfrogs: int = 4,
    fraction: float = 0.9,
    discrete: str = "auto",
    batch_size: int | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    progress: bool = True,
    seed: int | Array = 0,
) -> Posterior:
    r"""Draw from the posterior, and estimate the log evidence, by tempered sequential Monte Carlo.

    Particles start at exact draws of the prior q, or of a guide. At each temperature they are
    weighed, moved by Hamiltonian Monte Carlo (and by Gibbs sweeps over the discrete latents where
    these are drawn) and resampled systematically, in G islands of P particles that never meet:

    \[ \hat Z_g = \prod_{t=1}^T \frac1P \sum_{k=1}^P
       \left(\frac{p(x, z_{t-1}^k)}{q(z_{t-1}^k)}\right)^{\beta_t - \beta_{t-1}}, \qquad
       \hat Z = \frac1G \sum_g \hat Z_g, \qquad \mathbb E\, \hat Z = p(x) \]

    A pilot run chooses the temperatures so that the conditional effective sample size stays at
    `fraction`, and the moves; both are then held, so that the estimate is unbiased. The spread of
    the islands gives the standard error. Where every latent is local to the data plate and rows do
    not touch each other, all of this happens for each datum.

    Args:
        model: A NumPyro program.
        *data: Its data, with rows on the leading axis.
        guide: Where the path starts: a guide, or a `Fit`; the prior when None.
        num_particles: Number of particles (of each row), in all islands together.
        num_islands: Number G of islands.
        num_moves: Hamiltonian trajectories, and Gibbs sweeps, at each temperature.
        num_leapfrogs: Leapfrog steps of a trajectory.
        fraction: Effective fraction of the particles that a step in temperature keeps.
        discrete: `"sum"` over the discrete latents, `"gibbs"` to draw them, or `"auto"`: see `ais`.
        batch_size: Rows that climb together; None chooses as many as fit in memory.
        params: Learned values by name, or a `Fit`; those of `guide` where that is a fit.
        model_kwargs: Constants passed by name to model and guide.
        progress: Whether to show a progress bar.
        seed: An int or a random key.

    Returns:
        Equally weighted draws, and the evidence with its standard error.

    Raises:
        ValueError: What `ais` raises, or particles that are no multiple of the islands.

    Cost:
        T num_particles num_moves (num_leapfrogs + 1) gradients, T being some tens.

    References:
        Del Moral, Doucet, Jasra: Sequential Monte Carlo samplers. JRSS B 68, 2006.
        https://arxiv.org/abs/cond-mat/0212648

        Zhou, Johansen, Aston: Toward automatic model comparison: an adaptive sequential Monte Carlo
        approach. 2016. https://arxiv.org/abs/1303.3123

    Example:
        >>> import numpy as np, numpyro, numpyro.distributions as dist
        >>> def model(x):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("x", dist.Normal(mu, 1), obs=x)
        >>> found = smc(model, np.ones(2), progress=False)
        >>> bool(abs(found.evidence.log_evidence - -2.72051) < 5 * found.evidence.standard_error)
        True
        >>> bool(abs(found.draws["mu"].mean() - 2 / 3) < 0.1)
        True
    """
    check_counts(
        num_particles=num_particles, num_islands=num_islands, num_moves=num_moves,
        num_leapfrogs=num_leapfrogs, batch_size=batch_size,
    )  # fmt: skip
    check_fraction(fraction, num_particles, num_islands)
    began = time.perf_counter()
    path, about = read_any(
        model, *data, discrete=discrete, guide=guide, params=params, model_kwargs=model_kwargs,
        verb="smc", seed=seed,
    )  # fmt: skip
    key, sizes = as_key(seed), (num_particles, num_islands, num_moves, num_leapfrogs, fraction)
    found = with_blocks(
        path,
        random.fold_in(key, 2**31),
        lambda table: _all(path, table, key, *sizes, batch_size, progress),
    )
    return as_posterior(
        path,
        data,
        found.draws,
        "smc",
        began,
        evidence=of_islands(found.log_weights, num_particles, path.rows),
        attrs={"num_islands": num_islands, **found.attrs, **about},
    )


def _all(
    path: Path | MixedPath, table: Any, key: Array, num_particles: int, num_islands: int,
    num_moves: int, num_leapfrogs: int, fraction: float, batch_size: int | None, progress: bool,
) -> Climbed:  # fmt: skip
    """Let all particles climb, rows after rows."""
    log_z, draws, lengths, gradients, compiling, worst = [], [], [], 0, 0.0, 0.0
    chunks = list(parts(path, num_particles, batch_size))
    with tqdm(disable=not progress) as bar:
        for number, (index, used) in enumerate(chunks):
            climb = Climb(path, num_leapfrogs, index, bar.update, table)
            keys = random.split(random.fold_in(key, number), 3)
            bar.set_description(f"pilot run {number + 1} of {len(chunks)}")
            schedule = pilot(climb, keys[0], num_chains=num_particles, fraction=fraction)
            bar.set_description(f"climb {number + 1} of {len(chunks)}")
            chains = climb.begin(keys[1], num_particles)
            position, means = _climb(climb, keys[2], chains, schedule, num_islands, num_moves)
            log_z.append(means[:, :used] if path.rows else means)
            draws.append(cut(climb.constrain(position), path.row_axes, used))
            lengths.append(len(schedule.temperatures) - 1)
            gradients, compiling = gradients + climb.gradients, compiling + climb.compile_seconds
            worst = max(worst, climb.discrepancy)
    attrs = {
        "num_temperatures": max(lengths),
        "num_gradients": gradients,
        "compile_seconds": compiling,
    }
    islands = np.concatenate(log_z, axis=1) if path.rows else log_z[0]
    return Climbed(islands, join(draws, path.row_axes), attrs, worst)


def _climb(
    climb: Climb, key: Array, chains: Chains, schedule: Schedule, num_islands: int, num_moves: int
) -> tuple[Array, np.ndarray]:
    """Return positions of equal weight, and the log estimate of each island."""
    moves, total = upwards(schedule, num_moves), np.zeros(())
    for stage in range(len(schedule.temperatures) - 1):
        part = Moves(*(values[stage * num_moves : (stage + 1) * num_moves] for values in moves))
        keys = random.split(random.fold_in(key, stage), 2)
        chains, _ = climb.run(keys[0], chains, part, stage * num_moves)
        chains, means = climb.resample(keys[1], chains, num_islands)
        total = total + np.asarray(means, np.float64)
    # All islands are drawn from together, each in proportion to its own estimate.
    size = len(chains.position) // num_islands
    weights = np.repeat(total, size, axis=0).astype(chains.position.dtype)
    chains = chains._replace(log_weights=weights - weights.max(axis=0))
    last = random.fold_in(key, len(schedule.temperatures))
    chains, _ = climb.resample(last, chains, 1)
    end = Moves(*(values[-num_moves:] for values in moves))
    end = end._replace(increments=np.zeros_like(end.increments))
    chains, _ = climb.run(random.fold_in(last, 0), chains, end)
    return chains.position, total
