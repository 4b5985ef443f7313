"""Bridge sampling: the log evidence from the draws of any posterior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jax import Array, random
from jaxtyping import Float

from deepgen_ppl.bridge import Bridge, Normal, bridge_evidence, check_draws, check_has
from deepgen_ppl.bridge import bridge as bridge_
from deepgen_ppl.evidence_checks import check_counts
from deepgen_ppl.numpyro.compilation import build_of
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.infer.annealing import Climb
from deepgen_ppl.numpyro.infer.evaluate import over_draws
from deepgen_ppl.numpyro.mixed import MixedPath
from deepgen_ppl.numpyro.path import Path
from deepgen_ppl.numpyro.paths import read_path
from deepgen_ppl.posterior import Posterior


def bridge(
    posterior: Posterior,
    model: Callable[..., Any],
    *data: Any,
    guide: Any = None,
    num_proposals: int | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    seed: int | Array = 0,
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
        model: The NumPyro program they are of.
        *data: Its data.
        guide: The proposal: a guide, or a `Fit`; a normal fitted to the draws when None.
        num_proposals: Draws of the proposal for each half; as many as that half has when None.
        params: Learned values by name, or a `Fit`; those of `guide` or `posterior` when None.
        model_kwargs: Constants passed by name to model and guide.
        seed: An int or a random key.

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
        >>> import numpy as np, numpyro, numpyro.distributions as dist
        >>> def model(x):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("x", dist.Normal(mu, 1), obs=x)
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
        key = random.fold_in(as_key(seed), number)
        halves.append(_one(path, key, fitted, bridged, num))
    found = bridge_evidence(
        (halves[0], halves[1]), num_draws=even.num_chains * even.num_draws, rows=path.rows
    )
    return replace(posterior, evidence=found)


def _one(path: Path, key: Array, fitted: np.ndarray, bridged: np.ndarray, num: int) -> Bridge:
    """Bridge some draws to the proposal that others fitted."""
    flat = bridged.reshape(-1, *path.shape)
    if path.pair.guide is not None:
        proposed = np.asarray(Climb(path, 1).begin(key, num).position)
        ratios = [np.subtract(*log_densities(path, z)[::-1]) for z in (flat, proposed)]
    else:
        normal = Normal.fit(fitted.reshape(-1, *path.shape))
        rng = np.random.default_rng(np.asarray(random.key_data(key), np.uint32))
        proposed = normal.sample(rng, num).astype(flat.dtype)
        ratios = [log_densities(path, z)[1] - normal.log_prob(z) for z in (flat, proposed)]
    own = ratios[0].reshape(*bridged.shape[:2], *ratios[0].shape[1:])
    return bridge_(own, np.where(np.isnan(ratios[1]), -np.inf, ratios[1]))


def log_densities(
    path: Path, z: Float[np.ndarray, "S *row D"]
) -> tuple[Float[np.ndarray, "S ..."], Float[np.ndarray, "S ..."]]:
    """Return the log densities of reference and target at many positions, a chunk at a time."""

    def both(draw: Any, key: Any, params: Any, inputs: Any) -> dict[str, Array]:
        reference, target = path.at(params, inputs).log_densities(draw["z"])
        return {"reference": reference, "target": target}

    found = _over(path, "path densities", both, {"z": z})
    return found["reference"].astype(np.float64), found["target"].astype(np.float64)


def positions(
    path: Path | MixedPath, sites: Mapping[str, Float[np.ndarray, "chain draw *shape"]]
) -> Float[np.ndarray, "chain draw *row D"]:
    """Return the positions of draws of the latents that make them."""

    def one(draw: Any, key: Any, params: Any, inputs: Any) -> dict[str, Array]:
        return {"z": path.at(params, inputs).unconstrain(draw)}

    lead = next(iter(sites.values())).shape[:2]
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in sites.items()}
    return _over(path, "path positions", one, flat)["z"].reshape(*lead, *path.shape)


def _over(path: Path | MixedPath, name: str, fn: Callable, draws: Mapping[str, np.ndarray]) -> dict:
    args = (path.params, path.inputs)
    return over_draws(build_of(path.pair, *path.static[1:]), name, fn, draws, args)
