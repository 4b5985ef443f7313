"""Bridge sampling: the log evidence from the draws of any posterior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from deepgen_ppl.bridge import Bridge, Normal, bridge_evidence, check_draws, check_has
from deepgen_ppl.bridge import bridge as bridge_
from deepgen_ppl.evidence_checks import check_counts
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.pyro.infer import evaluate
from deepgen_ppl.pyro.infer.train import mix
from deepgen_ppl.pyro.mixed import MixedPath
from deepgen_ppl.pyro.path import Path
from deepgen_ppl.pyro.paths import read_path


def bridge(
    posterior: Posterior,
    model: Callable[..., Any],
    *data: Any,
    guide: Any = None,
    num_proposals: int | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Posterior:
    r"""Estimate the log evidence from draws of a posterior by bridge sampling.

    The optimal bridge between the posterior and a proposal q on the unconstrained space,

    \[ Z = \frac{\mathbb E_q[h(z)\, p(x, z)]}{\mathbb E_{p(z \mid x)}[h(z)\, q(z)]}, \qquad
       h \propto \frac{1}{s_1\, p(x, z) + s_2\, Z\, q(z)}. \]

    The proposal is a normal fitted to half of the draws and bridged to the other half, both ways
    round, or a fitted guide. Where every latent is local to the data plate and rows do not touch
    each other, each datum has its own proposal and log evidence. Discrete sites of finite support
    are summed out. The posterior has to be drawn from well: the relative error knows of the draws'
    autocorrelation, not of a mode they never saw.

    Args:
        posterior: Draws of the model's continuous latents, by any verb.
        model: The Pyro program they are of.
        *data: Its data.
        guide: The proposal: a guide, or a `Fit`; a normal fitted to the draws when None.
        num_proposals: Draws of the proposal for each half; as many as that half has when None.
        params: Learned values by name, or a `Fit`; those of `guide` or `posterior` when None.
        model_kwargs: Constants passed by name to model and guide.
        seed: Seed of the proposal's draws. The user's random state is left alone.

    Returns:
        The posterior with its evidence, whose standard error is the relative error.

    Raises:
        ValueError: Fewer than eight draws of a chain, draws of another model, an improper prior, or
            a density that is not finite at a draw.

    Cost:
        One log density for each draw and each proposal.

    References:
        Meng and Wong: Simulating ratios of normalizing constants via a simple identity. Statistica
        Sinica 6, 1996.

        Gronau et al.: A tutorial on bridge sampling. 2017. https://arxiv.org/abs/1703.05984

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     mu = pyro.sample("mu", dist.Normal(0, 1))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(mu, 1), obs=x)
        >>> z = np.random.default_rng(0).normal(2 / 3, 3**-0.5, (4, 500))
        >>> found = bridge(Posterior({"mu": z}), model, np.ones(2)).evidence
        >>> bool(abs(found.log_evidence - -2.72051) < 4 * found.standard_error)
        True
    """
    check_counts(num_proposals=num_proposals)
    even = posterior.resample()
    check_draws(even.num_chains, even.num_draws)
    if params is None and guide is None and posterior.params:
        params = posterior.params
    path = read_path(
        model, *data, guide=guide, params=params, model_kwargs=model_kwargs, verb="bridge",
        seed=seed,
    )  # fmt: skip
    continuous = [n for n, site in path.pair.model.latents.items() if not site.is_discrete]
    check_has(even.draws, continuous)
    z = positions(path, {name: even.draws[name] for name in continuous})
    half = even.num_draws // 2
    first, second = z[:, :half], z[:, half : 2 * half]
    num = num_proposals or first.shape[0] * half
    halves = []
    for number, (fitted, bridged) in enumerate(((first, second), (second, first))):
        halves.append(_one(path, mix(seed, 13, number), fitted, bridged, num))
    found = bridge_evidence(
        (halves[0], halves[1]), num_draws=even.num_chains * even.num_draws, rows=path.rows
    )
    return replace(posterior, evidence=found)


def _one(path: Path, seed: int, fitted: np.ndarray, bridged: np.ndarray, num: int) -> Bridge:
    """Bridge some draws to the proposal that others fitted."""
    flat = bridged.reshape(-1, *path.shape)
    if path.pair.guide is not None:
        generator = torch.Generator(path.device).manual_seed(seed)
        proposed = path.sample(generator, num).cpu().numpy()
        ratios = [np.subtract(*log_densities(path, z)[::-1]) for z in (flat, proposed)]
    else:
        normal = Normal.fit(fitted.reshape(-1, *path.shape))
        proposed = normal.sample(np.random.default_rng(seed), num).astype(flat.dtype)
        ratios = [log_densities(path, z)[1] - normal.log_prob(z) for z in (flat, proposed)]
    own = ratios[0].reshape(*bridged.shape[:2], *ratios[0].shape[1:])
    return bridge_(own, np.where(np.isnan(ratios[1]), -np.inf, ratios[1]))


def log_densities(
    path: Path, z: Float[np.ndarray, "S *row D"]
) -> tuple[Float[np.ndarray, "S ..."], Float[np.ndarray, "S ..."]]:
    """Return the log densities of reference and target at many positions, a chunk at a time."""
    with evaluate.few_threads(path.numbers):
        found = path.log_densities(torch.as_tensor(z, device=path.device))
    reference, target = (part.double().cpu().numpy() for part in found)
    return reference, target


def positions(
    path: Path | MixedPath, sites: Mapping[str, Float[np.ndarray, "chain draw *shape"]]
) -> Float[np.ndarray, "chain draw *row D"]:
    """Return the positions of draws of the latents that make them."""
    lead = next(iter(sites.values())).shape[:2]
    flat = {
        name: torch.as_tensor(value.reshape(-1, *value.shape[2:]), device=path.device)
        for name, value in sites.items()
    }
    return path.unconstrain(flat).cpu().numpy().reshape(*lead, *path.shape)
