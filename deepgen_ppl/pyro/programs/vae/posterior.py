"""Posteriors: from the outputs of an encoder to the language's own distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import AffineTransform

from deepgen_ppl import flow_checks
from deepgen_ppl.latent_axes import (
    BinaryPosterior,
    CategoricalPosterior,
    Diagonal,
    FlowPosterior,
    FullCovariance,
    LadderPosterior,
    MixturePosterior,
)
from deepgen_ppl.pyro import flows
from deepgen_ppl.pyro.distributions import DiagonalMixture
from deepgen_ppl.pyro.flows.layer import FlowDistribution
from deepgen_ppl.pyro.relaxation import OneHots

Raw = Float[Tensor, "*batch outputs"]
Posterior = (
    Diagonal
    | FullCovariance
    | FlowPosterior
    | MixturePosterior
    | LadderPosterior
    | BinaryPosterior
    | CategoricalPosterior
)


def flow_of(kind: Posterior, latents: int) -> Any:
    """Return the flow that a posterior learns, None where it has none.

    Raises:
        ValueError: an unknown flow.
    """
    if not isinstance(kind, FlowPosterior):
        return None
    make: Any = kind.flow
    if isinstance(make, str):
        names = [name for name in flows.__all__ if name[0].isupper() and name.isupper()]
        names += ["RealNVP", "Planar", "Radial", "Sylvester"]
        make = getattr(flows, flow_checks.choice("flow", make, sorted(set(names))))
    options = {"along": "push"} if kind.flow == "RealNVP" else {}
    options = {**options, **kind.options}
    return make(latents, context=kind.embedding, seed=kind.seed, **options)


def native(
    kind: Posterior, raw: Raw, flow: Any, latents: int, prior: Any = None
) -> dist.Distribution:
    """Return the distribution of the latents.

    Args:
        kind: the posterior.
        raw: outputs of the encoder.
        flow: the flow of a `FlowPosterior`.
        latents: number of latents.
        prior: the networks of a prior in layers, which a `LadderPosterior` goes down with.
    """
    if isinstance(kind, MixturePosterior):
        return _mixture(kind.components, raw, latents)
    if isinstance(kind, BinaryPosterior):
        return dist.Bernoulli(logits=raw).to_event(1)
    if isinstance(kind, CategoricalPosterior):
        return OneHots(raw.reshape(*raw.shape[:-1], latents // kind.states, kind.states))
    loc, log_scale, rest = torch.tensor_split(raw, (latents, 2 * latents), -1)
    if isinstance(kind, LadderPosterior):
        return prior.distribution(loc, log_scale)
    if isinstance(kind, FullCovariance):
        return dist.MultivariateNormal(loc, scale_tril=_lower(torch.exp(log_scale), rest))
    if isinstance(kind, FlowPosterior):
        pushed = flow(rest)
        end = AffineTransform(loc, torch.exp(log_scale))
        return FlowDistribution(pushed.base_dist, [*pushed.transforms, end])
    return dist.Normal(loc, torch.exp(log_scale)).to_event(1)


def _mixture(size: int, raw: Raw, latents: int) -> dist.Distribution:
    logits, locs, log_scales = torch.tensor_split(raw, (size, size * (1 + latents)), -1)
    shape = (*raw.shape[:-1], size, latents)
    return DiagonalMixture(logits, locs.reshape(shape), torch.exp(log_scales).reshape(shape))


def _lower(diagonal: Tensor, below: Tensor) -> Tensor:
    """Return lower triangular matrices from their diagonal and, row by row, what is below it."""
    size = diagonal.shape[-1]
    entries = torch.cat([torch.zeros_like(diagonal[..., :1]), diagonal, below], -1)
    where = np.zeros((size, size), int)
    where[np.diag_indices(size)] = 1 + np.arange(size)
    where[np.tril_indices(size, -1)] = 1 + size + np.arange(below.shape[-1])
    index = torch.as_tensor(where.reshape(-1), device=entries.device)
    return entries.index_select(-1, index).reshape(*diagonal.shape[:-1], size, size)
