"""Annealed importance sampling: log evidence by a climb from a prior or guide to a posterior."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax import Array, random
from tqdm.auto import tqdm

from deepgen_ppl.annealing import upwards
from deepgen_ppl.evidence import evidence
from deepgen_ppl.evidence_checks import check_counts
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.infer.annealing import Climb, as_posterior, cut, join, parts, pilot
from deepgen_ppl.numpyro.path import read_path
from deepgen_ppl.posterior import Posterior


def ais(
    model: Callable[..., Any],
    *data: Any,
    guide: Any = None,
    num_chains: int = 64,
    num_temperatures: int = 1000,
    num_leapfrogs: int = 4,
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

    with one Hamiltonian trajectory at each temperature. Temperatures, step sizes and scales come
    from a pilot run and are then held, so that the mean of the weights is unbiased. Where every
    latent is local to the data plate and rows do not touch each other, each datum has its own
    temperatures, chains and log evidence. Discrete sites of finite support are summed out.

    Args:
        model: A NumPyro program with continuous latents.
        *data: Its data, with rows on the leading axis.
        guide: Where the path starts: a guide, or a `Fit`; the prior when None.
        num_chains: Number K of chains (of each row).
        num_temperatures: Number T of temperatures.
        num_leapfrogs: Leapfrog steps of a transition.
        batch_size: Rows that climb together; None chooses as many as fit in memory.
        params: Learned values by name, or a `Fit`; those of `guide` where that is a fit.
        model_kwargs: Constants passed by name to model and guide.
        progress: Whether to show a progress bar.
        seed: An int or a random key.

    Returns:
        The chains' last states with their weights, and the evidence with its standard error.

    Raises:
        ValueError: An improper prior (the evidence is undefined), no continuous latent, a guide
            that cannot be a start, or a density that is NaN or zero at draws of the reference: the
            message names the site.

    Cost:
        K T (num_leapfrogs + 1) gradients, and a pilot run of about a tenth of that.

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
    path = read_path(
        model, *data, guide=guide, params=params, model_kwargs=model_kwargs, verb="ais", seed=seed
    )
    key, log_w, draws, rates, betas = as_key(seed), [], [], [], []
    gradients, compiling = 0, 0.0
    chunks = list(parts(path, num_chains, batch_size))
    with tqdm(total=len(chunks) * num_temperatures, disable=not progress) as bar:
        for number, (index, used) in enumerate(chunks):
            climb = Climb(path, num_leapfrogs, index, bar.update)
            keys = random.split(random.fold_in(key, number), 3)
            bar.set_description("pilot run")
            schedule = pilot(climb, keys[0], num_chains=num_chains).refine(num_temperatures)
            bar.set_description("annealing")
            chains = climb.begin(keys[1], num_chains)
            chains, acceptance = climb.run(keys[2], chains, upwards(schedule))
            weights = np.asarray(chains.log_weights)
            log_w.append(weights[:, :used] if path.rows else weights)
            draws.append(cut(path, climb.constrain(chains.position), used))
            rates.append(acceptance.mean())
            betas.append(schedule.temperatures)
            gradients, compiling = gradients + climb.gradients, compiling + climb.compile_seconds
    log_weights = np.concatenate(log_w, axis=1) if path.rows else log_w[0]
    return as_posterior(
        path,
        data,
        join(path, draws),
        "ais",
        began,
        log_weights=log_weights[None],
        evidence=evidence(log_weights, rows=path.rows, method="annealed importance sampling"),
        attrs={
            "num_temperatures": num_temperatures,
            "num_gradients": gradients,
            "acceptance_rate": float(np.mean(rates)),
            "compile_seconds": compiling,
        },
    )
