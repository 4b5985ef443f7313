"""Annealed importance sampling: log evidence by a climb from a reference to the posterior."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from deepgen_ppl.annealing import Climbed, cut, join, upwards
from deepgen_ppl.evidence import evidence
from deepgen_ppl.evidence_checks import check_counts
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.pyro.infer import evaluate
from deepgen_ppl.pyro.infer.annealing import Climb, as_posterior, parts, with_blocks
from deepgen_ppl.pyro.infer.pilot import pilot
from deepgen_ppl.pyro.infer.train import mix
from deepgen_ppl.pyro.mixed import MixedPath
from deepgen_ppl.pyro.path import Path
from deepgen_ppl.pyro.paths import read_any


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
    seed: int = 0,
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
        model: A Pyro program.
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
        seed: Seed of the chains. The user's random state is left alone.

    Returns:
        The chains' last states with their weights, and the evidence with its standard error.

    Raises:
        ValueError: An improper prior (the evidence is undefined), no latent, a discrete one without
            a finite support, a guide that cannot be a start, or a density that is NaN or zero at
            draws of the reference: the message names the site.

    Cost:
        K T num_leapfrogs gradients, and a pilot run of about a tenth of that. Where discrete
        latents are drawn, K T densities more for each block of them that moves at once and each of
        their values (see `Gibbs`).

    References:
        Neal: Annealed importance sampling. Statistics and Computing 11, 2001.
        https://arxiv.org/abs/physics/9803008

        Sohl-Dickstein and Culpepper: Hamiltonian annealed importance sampling for partition
        function estimation. 2012. https://arxiv.org/abs/1205.1925

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     mu = pyro.sample("mu", dist.Normal(0, 1))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(mu, 1), obs=x)
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
    sizes = (num_chains, num_temperatures, num_leapfrogs, batch_size)
    found = with_blocks(
        path, mix(seed, 17), lambda table: _climb(path, table, seed, *sizes, progress)
    )
    log_weights = found.log_weights
    return as_posterior(
        path,
        found.draws,
        "ais",
        began,
        log_weights=log_weights[None],
        evidence=evidence(log_weights, rows=path.rows, method="annealed importance sampling"),
        attrs={"num_temperatures": num_temperatures, **found.attrs, **about},
    )


def _climb(
    path: Path | MixedPath, table: Any, seed: int, num_chains: int, num_temperatures: int,
    num_leapfrogs: int, batch_size: int | None, progress: bool,
) -> Climbed:  # fmt: skip
    """Anneal all chains, rows after rows."""
    log_w, draws, rates, gradients, compiling, worst = [], [], [], 0, 0.0, 0.0
    chunks = list(parts(path, num_chains, batch_size))
    with (
        tqdm(total=len(chunks) * num_temperatures, disable=not progress) as bar,
        evaluate.few_threads(path.numbers * num_chains // len(chunks)),
    ):
        for number, (part, used) in enumerate(chunks):
            climb = Climb(part, num_leapfrogs, bar.update, table)
            generator = torch.Generator(path.device).manual_seed(mix(seed, 11, number))
            bar.set_description("pilot run")
            schedule = pilot(climb, generator).refine(num_temperatures)
            bar.set_description("annealing")
            chains = climb.begin(generator, num_chains)
            chains, acceptance = climb.run(generator, chains, upwards(schedule))
            found = chains.log_weights.cpu().numpy()
            log_w.append(found if path.rows is None else found[:, :used])
            draws.append(cut(part.constrain(chains.position), path.row_axes, used))
            rates.append(acceptance.mean())
            gradients, compiling = gradients + climb.gradients, compiling + climb.compile_seconds
            worst = max(worst, climb.discrepancy)
    attrs = {
        "compiled": chunks[0][0].compiled,
        "compiled_reason": chunks[0][0].reason,
        "num_gradients": gradients,
        "acceptance_rate": float(np.mean(rates)),
        "compile_seconds": compiling,
    }
    log_weights = log_w[0] if path.rows is None else np.concatenate(log_w, axis=1)
    return Climbed(log_weights, join(draws, path.row_axes), attrs, worst)
