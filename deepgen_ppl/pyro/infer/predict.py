"""The verb `predict`: draws of a model's observed sites given the prior, a guide or a posterior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import checks, datatree
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.infer import evaluate
from deepgen_ppl.pyro.parameters import given, preserved, private_store, resolve

if TYPE_CHECKING:
    import xarray as xr


def predict(
    model: Callable[..., Any],
    *data: Any,
    posterior: Posterior | None = None,
    num_samples: int = 1000,
    guide: Callable[..., Any] | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> xr.DataTree:
    r"""Draw a model's observed sites anew, by running it forwards.

    \[ z \sim p(z \mid \text{data}) \text{ or } q(z) \text{ or } p(z), \qquad
       y^\mathrm{rep} \sim p(y \mid z) \]

    The data may be other than those the posterior is of, with another number of rows, and `None`
    where the model allows it: latents local to the rows are then drawn from the model.

    Args:
        model: A Pyro program.
        *data: Its data, with rows on the leading axis.
        posterior: Draws of the latents; by default the prior's.
        num_samples: Number of draws; of a posterior at most as many as it has.
        guide: Where latents are drawn from when there is no posterior.
        params: Learned values of parameters: a dict or a `Fit`; by default the posterior's.
        model_kwargs: Constants passed to the model by name.
        seed: Seed of the draws.

    Returns:
        A DataTree with groups `prior` and `prior_predictive`, or `posterior` and
        `posterior_predictive` (deterministic sites and latents that were drawn from the model among
        them), and the data.

    Raises:
        ValueError: Latents would be drawn from a model with factors, which running forwards leaves
            out of account; or a posterior's site has another shape in the model.

    Cost:
        One run of the model for each draw, vectorised where the program allows it.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(y):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> tree = predict(model, np.zeros(5), num_samples=100)
        >>> dict(tree.prior_predictive["y"].sizes)
        {'chain': 1, 'draw': 100, 'data': 5}
    """
    _check_arguments(posterior, guide, num_samples)
    fn, bound, _ = program_.unwrap(model)
    data = data_.to_tensors(data)
    data_.check(data_.argument_names(fn, len(bound), len(data)), data)
    learned = given(posterior.params if params is None and posterior is not None else params)
    options: dict[str, Any] = {"model_kwargs": model_kwargs, "params": learned, "seed": seed}
    with private_store():
        pair = program_.read_pair(model, guide, data, **options, prior=True, partial=True)
        if guide is not None and params is not None:
            checks.check_known(learned or {}, pair.params)
        program, values = pair.model, resolve(pair.params, learned)
        latents, shape = _latents(program, posterior, num_samples)
        drawn = latents if pair.guide is None else pair.guide.latents
        _check_factors(program, [name for name in program.latents if name not in drawn])

        def one(point: dict[str, Tensor]) -> dict[str, Tensor]:
            point = {name: value for name, value in point.items() if name != "draw number"}
            if guide is not None:
                point = program_.log_weights(pair, values, data).latents
            return program_.simulate(program, values, data, point)

        counter = torch.arange(shape[0] * shape[1])
        with preserved(pair.modules):
            found = evaluate.over_draws(one, {"draw number": counter, **latents}, seed)
        about = evaluate.fields(program, values, data, seed=seed)
    sites = {name: value.reshape(*shape, *value.shape[1:]) for name, value in found.items()}
    is_prior = posterior is None and guide is None
    known = set(program.latents if is_prior else drawn)
    groups = {
        "prior" if is_prior else "posterior": {n: v for n, v in sites.items() if n in known},
        "prior_predictive" if is_prior else "posterior_predictive": {
            name: value for name, value in sites.items() if name not in known
        },
    }
    arrays = {name: (group, 2) for name, group in groups.items() if group}
    arrays |= {name: (about[name], 0) for name in datatree.DATA if about[name]}
    return datatree.assemble(arrays, about["dims"])


def _check_arguments(posterior: Any, guide: Any, num_samples: int) -> None:
    if posterior is not None and not isinstance(posterior, Posterior):
        raise TypeError(
            f"posterior must be the Posterior a verb returned, not {type(posterior).__name__}. "
            "Learned values of a "
            "Fit are given as params=fit."
        )
    if posterior is not None and guide is not None:
        raise ValueError(
            "Give predict a posterior or a guide, not both: each of them draws the latents."
        )
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(f"num_samples must be a whole number of at least 1, got {num_samples!r}.")


def _latents(
    program: program_.Program, posterior: Posterior | None, num_samples: int
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Return the posterior's draws of sites that the model has at these data, and (chain, draw)."""
    if posterior is None:
        return {}, (1, num_samples)
    total = posterior.num_chains * posterior.num_draws
    even = posterior.resample(num_samples if num_samples < total else None)
    latents: dict[str, np.ndarray] = {}
    for name, value in even.flat().items():
        site = program.latents.get(name)
        if site is None:
            continue
        if value.shape[1:] == site.shape:
            latents[name] = value
        elif site.row_plate is None:
            raise ValueError(
                f"Site '{name}' has shape {value.shape[1:]} in the posterior and {site.shape} in "
                "the model at these "
                "data. Only sites in a plate that follows the data may change their shape."
            )
    if program.latents and not latents:
        names = ", ".join(f"'{name}'" for name in program.latents)
        raise ValueError(
            f"The posterior has draws of none of the model's latent sites ({names}). Is it of "
            "another model?"
        )
    return latents, (even.num_chains, even.num_draws)


def _check_factors(program: program_.Program, drawn: list[str]) -> None:
    if program.factors and drawn:
        factors = ", ".join(f"'{name}'" for name in program.factors)
        names = ", ".join(f"'{name}'" for name in drawn)
        raise ValueError(
            f"The model has factor statements ({factors}), which drawing {names} from it would "
            "leave out of account. "
            "Draw the latents by mcmc, and pass predict that posterior."
        )
