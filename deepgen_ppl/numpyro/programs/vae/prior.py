"""Priors: the language's own distributions of the latents, learned or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from deepgen_ppl import flow_checks
from deepgen_ppl.latent_axes import (
    PRIORS,
    BinaryPrior,
    CategoricalPrior,
    HierarchicalPrior,
    MixturePrior,
    StandardNormal,
    VampPrior,
)
from deepgen_ppl.numpyro import flows
from deepgen_ppl.numpyro.distributions import BernoulliLogits
from deepgen_ppl.numpyro.programs.vae.ladder import TopDown
from deepgen_ppl.numpyro.programs.vae.modules import is_distribution, values
from deepgen_ppl.numpyro.relaxation import OneHots


def prior(value: Any, latents: int, seed: int) -> Any:
    """Return the prior that is meant: options of ours, or a module, function or distribution.

    Raises:
        ValueError: an unknown name.
        TypeError: none of these.
    """
    if isinstance(value, str):
        name = flow_checks.choice("prior", value, (*PRIORS, "flow"))
        if name == "flow":
            return flows.RealNVP(latents, hidden=(64,), seed=seed)
        return PRIORS[name]()
    known = isinstance(value, (HierarchicalPrior, *PRIORS.values()))
    if known or is_distribution(value) or callable(value):
        return value
    raise TypeError(
        f"prior must be one of {', '.join(map(repr, (*PRIORS, 'flow')))}, one of dg.vae such as "
        "MixturePrior(20), a distribution, or a module that gives one when it is called, not "
        f"{type(value).__name__}."
    )


def module_of(kind: Any, latents: int, inputs: tuple[int, ...]) -> Any:
    """Return what a prior learns as a module, None where it learns nothing.

    Args:
        kind: the prior.
        latents: number of latents.
        inputs: shape of a datum as the encoder sees it.
    """
    if isinstance(kind, VampPrior):
        return values(kind.own(inputs))
    if isinstance(kind, StandardNormal | MixturePrior | BinaryPrior | CategoricalPrior):
        return values(kind.own(latents))
    if isinstance(kind, HierarchicalPrior):
        return TopDown(kind)
    return None if is_distribution(kind) else kind


def native(
    kind: Any,
    module: Any,
    latents: int,
    context: Array | None,
    encode: Callable[[Array], dist.Distribution],
) -> dist.Distribution:
    """Return the distribution of the latents.

    Args:
        kind: the prior.
        module: what it learns, registered.
        latents: number of latents.
        context: the conditions of each datum, None without.
        encode: the posterior at inputs as the encoder sees them.
    """
    if isinstance(kind, StandardNormal):
        return dist.Normal(jnp.zeros(latents), 1.0).to_event(1)
    if isinstance(kind, MixturePrior):
        each = dist.Normal(module["locs"], jnp.exp(module["log_scales"])).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=module["logits"]), each)
    if isinstance(kind, BinaryPrior):
        return BernoulliLogits(module["logits"]).to_event(1)
    if isinstance(kind, CategoricalPrior):
        return OneHots(module["logits"])
    if isinstance(kind, VampPrior):
        weights = dist.Categorical(logits=module["logits"])
        return dist.MixtureSameFamily(weights, encode(module["inputs"]))
    if isinstance(kind, HierarchicalPrior):
        return module.distribution()
    if is_distribution(kind):
        return kind
    given = context is not None and getattr(kind, "context", 0)
    return module(context) if given else module()
