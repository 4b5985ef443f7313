"""Annealed importance sampling: log evidence by a climb from a prior or guide to a posterior."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax import Array, random
from tqdm.auto import tqdm

from deepgen_ppl.annealing import Climbed, cut, join, upwards
from deepgen_ppl.evidence import evidence
from deepgen_ppl.evidence_checks import check_counts
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.infer.annealing import Climb, as_posterior, parts, with_blocks
from deepgen_ppl.numpyro.infer.pilot import pilot
from deepgen_ppl.numpyro.mixed import MixedPath
from deepgen_ppl.numpyro.path import Path
from deepgen_ppl.numpyro.paths import read_any
from deepgen_ppl.posterior import Posterior


def ais(
    model: Callable[..., Any],
    *data: Any,
    guide: Any = None,
    num_chains: int = 64,
    num_temperatures: int = 1000,
    num_leapfrogs: int = 4,
    discrete: str = "auto",
    batch_size: int | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    progress: bool = True,
    seed: int | Array = 0,
) -> Posterior:
    r"""Estimate the log evidence by annealed importance sampling.

    Each of K chains starts at an exact draw of the prior q, or of a guide, and climbs to the joint
    density through \(\log \pi_\beta = (1 - \beta) \log q + \beta \log p(x, \cdot)\):

    \[ \log w = \sum_{t=1}^T (\beta_t - \beta_{t-1}) \log \frac{p(x, z_{t-1})}{q(z_{t-1})}, \quad
       z_t \sim K_{\beta_t}(z_{t-1}), \qquad \mathbb E\, w = p(x) \]

    with one Hamiltonian trajectory at each temperature, and one Gibbs sweep over the discrete
    latents where these are drawn. Temperatures, step sizes and scales come
    from a pilot run and are then held, so that the mean of the weights is unbiased. Where every
    latent is local to the data plate and rows do not touch each other, each datum has its own
    temperatures, chains and log evidence.

    Args:
        model: A NumPyro program.
        *data: Its data, with rows on the leading axis.
        guide: Where the path starts: a guide, or a `Fit`; the prior when None. Discrete latents it
            does not draw start at their prior given what it draws.
        num_chains: Number K of chains (of each row).
        num_temperatures: Number T of temperatures.
        num_leapfrogs: Leapfrog steps of a transition.
        discrete: `"sum"` over the discrete latents, whose supports have to be finite, or `"gibbs"`
            to draw them, a sweep at each temperature; `"auto"` draws them where they cannot be
            summed out: where there is nothing else, a guide draws them, or it would take too many
            dimensions or too much memory.
        batch_size: Rows that climb together; None chooses as many as fit in memory.
        params: Learned values by name, or a `Fit`; those of `guide` where that is a fit.
        model_kwargs: Constants passed by name to model and guide.
        progress: Whether to show a progress bar.
        seed: An int or a random key.

    Returns:
        The chains' last states with their weights, and the evidence with its standard error.

    Raises:
        ValueError: An improper prior (the evidence is undefined), no latent, a discrete one without
            a finite support, a guide that cannot be a start, or a density that is NaN or zero at
            draws of the reference: the message names the site.

    Cost:
        K T (num_leapfrogs + 1) gradients, and a pilot run of about a tenth of that. Where discrete
        latents are drawn, K T densities more for each block of them that moves at once and each of
        their values (see `Gibbs`).

    References:
        Neal: Annealed importance sampling. Statistics and Computing 11, 2001.
        https://arxiv.org/abs/physics/9803008

        Sohl-Dickstein and Culpepper: Hamiltonian annealed importance sampling for partition
        function estimation. 2012. https://arxiv.org/abs/1205.1925

    Example:
        >>> import numpy as np, numpyro, numpyro.distributions as dist
        >>> def model(x):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("x", dist.Normal(mu, 1), obs=x)
        >>> found = ais(model, np.ones(2), num_temperatures=50, progress=False)
        >>> bool(abs(found.evidence.log_evidence - -2.72051) < 5 * found.evidence.standard_error)
        True
    """
    check_counts(
        num_chains=num_chains, num_temperatures=num_temperatures, num_leapfrogs=num_leapfrogs,
        batch_size=batch_size,
    )  # fmt: skip
    began = time.perf_counter()
    path, about = read_any(
        model, *data, discrete=discrete, guide=guide, params=params, model_kwargs=model_kwargs,
        verb="ais", seed=seed,
    )  # fmt: skip
    key, sizes = as_key(seed), (num_chains, num_temperatures, num_leapfrogs, batch_size)
    found = with_blocks(
        path, random.fold_in(key, 2**31), lambda table: _climb(path, table, key, *sizes, progress)
    )
    log_weights = found.log_weights
    return as_posterior(
        path,
        data,
        found.draws,
        "ais",
        began,
        log_weights=log_weights[None],
        evidence=evidence(log_weights, rows=path.rows, method="annealed importance sampling"),
        attrs={"num_temperatures": num_temperatures, **found.attrs, **about},
    )


def _climb(
    path: Path | MixedPath, table: Any, key: Array, num_chains: int, num_temperatures: int,
    num_leapfrogs: int, batch_size: int | None, progress: bool,
) -> Climbed:  # fmt: skip
    """Anneal all chains, rows after rows."""
    log_w, draws, rates, gradients, compiling, worst = [], [], [], 0, 0.0, 0.0
    chunks = list(parts(path, num_chains, batch_size))
    with tqdm(total=len(chunks) * num_temperatures, disable=not progress) as bar:
        for number, (index, used) in enumerate(chunks):
            climb = Climb(path, num_leapfrogs, index, bar.update, table)
            keys = random.split(random.fold_in(key, number), 3)
            bar.set_description("pilot run")
            schedule = pilot(climb, keys[0], num_chains=num_chains).refine(num_temperatures)
            bar.set_description("annealing")
            chains = climb.begin(keys[1], num_chains)
            chains, acceptance = climb.run(keys[2], chains, upwards(schedule))
            weights = np.asarray(chains.log_weights)
            log_w.append(weights[:, :used] if path.rows else weights)
            draws.append(cut(climb.constrain(chains.position), path.row_axes, used))
            rates.append(acceptance.mean())
            gradients, compiling = gradients + climb.gradients, compiling + climb.compile_seconds
            worst = max(worst, climb.discrepancy)
    attrs = {
        "num_gradients": gradients,
        "acceptance_rate": float(np.mean(rates)),
        "compile_seconds": compiling,
    }
    log_weights = np.concatenate(log_w, axis=1) if path.rows else log_w[0]
    return Climbed(log_weights, join(draws, path.row_axes), attrs, worst)
