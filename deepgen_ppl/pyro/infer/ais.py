"""Annealed importance sampling: log evidence by a climb from a reference to the posterior."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from deepgen_ppl.annealing import upwards
from deepgen_ppl.evidence import evidence
from deepgen_ppl.evidence_checks import check_counts
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.pyro.infer import evaluate
from deepgen_ppl.pyro.infer.annealing import Climb, as_posterior, cut, join, parts, pilot
from deepgen_ppl.pyro.infer.train import mix
from deepgen_ppl.pyro.path import read_path


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
    seed: int = 0,
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
        model: A Pyro program with continuous latents.
        *data: Its data, with rows on the leading axis.
        guide: Where the path starts: a guide, or a `Fit`; the prior when None.
        num_chains: Number K of chains (of each row).
        num_temperatures: Number T of temperatures.
        num_leapfrogs: Leapfrog steps of a transition.
        batch_size: Rows that climb together; None chooses as many as fit in memory.
        params: Learned values by name, or a `Fit`; those of `guide` where that is a fit.
        model_kwargs: Constants passed by name to model and guide.
        progress: Whether to show a progress bar.
        seed: Seed of the chains. The user's random state is left alone.

    Returns:
        The chains' last states with their weights, and the evidence with its standard error.

    Raises:
        ValueError: An improper prior (the evidence is undefined), no continuous latent, a guide
            that cannot be a start, or a density that is NaN or zero at draws of the reference: the
            message names the site.

    Cost:
        K T num_leapfrogs gradients, and a pilot run of about a tenth of that.

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
    path = read_path(
        model, *data, guide=guide, params=params, model_kwargs=model_kwargs, verb="ais", seed=seed
    )
    log_w, draws, rates = [], [], []
    gradients, compiling = 0, 0.0
    chunks = list(parts(path, num_chains, batch_size))
    with (
        tqdm(total=len(chunks) * num_temperatures, disable=not progress) as bar,
        evaluate.few_threads(path.numbers * num_chains // len(chunks)),
    ):
        for number, (part, used) in enumerate(chunks):
            climb = Climb(part, num_leapfrogs, bar.update)
            generator = torch.Generator(path.device).manual_seed(mix(seed, 11, number))
            bar.set_description("pilot run")
            schedule = pilot(climb, generator).refine(num_temperatures)
            bar.set_description("annealing")
            chains = climb.begin(generator, num_chains)
            chains, acceptance = climb.run(generator, chains, upwards(schedule))
            found = chains.log_weights.cpu().numpy()
            log_w.append(found if path.rows is None else found[:, :used])
            draws.append(cut(path, part.constrain(chains.position), used))
            rates.append(acceptance.mean())
            gradients, compiling = gradients + climb.gradients, compiling + climb.compile_seconds
    log_weights = log_w[0] if path.rows is None else np.concatenate(log_w, axis=1)
    return as_posterior(
        chunks[0][0],
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
