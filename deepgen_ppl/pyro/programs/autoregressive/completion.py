"""What is missing of an event, drawn given what is observed, by the steps of a module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Generator, Tensor

if TYPE_CHECKING:
    from deepgen_ppl.pyro.programs.autoregressive.module import Autoregressive, Context


class Completion(NamedTuple):
    """Values with what was missing filled in.

    Attributes:
        value: the completed values, shape (*batch, *event).
        log_evidence: estimate of the log density of what is observed, shape (*batch); exact where
            one run is.
        effective: effective number of particles at the end, shape (*batch); 1 where one run is
            exact.
    """

    value: Shaped[Tensor, "*batch_event"]
    log_evidence: Float[Tensor, "*batch"]
    effective: Float[Tensor, "*batch"]


def particles(
    net: Autoregressive,
    context: Context,
    x: Shaped[Tensor, "rows features"],
    observed: Bool[Tensor, "rows features"],
    generator: Generator,
    number: int,
    dtype: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return completed rows, the log evidence of what is observed, and the effective number.

    Args:
        net: the module.
        context: its context, a row each.
        x: values in order.
        observed: which of them are observed.
        generator: source of random numbers.
        number: particles of each row.
        dtype: of the network.
    """
    rows, features = x.shape
    output, owner = net.output, torch.arange(rows, device=x.device).repeat_interleave(number)
    options: Any = {"dtype": dtype, "device": x.device}
    kept = net.start(rows * number, None if context is None else context[owner])
    before = torch.zeros(rows * number, output.inputs, **options)
    found = torch.zeros(rows * number, features, device=x.device, dtype=x.dtype)
    if output.values.kind == "real":
        found = found.to(dtype)
    log_weights, evidence = torch.zeros(rows, number, **options), torch.zeros(rows, **options)
    for i in range(features):
        params, kept = net.step(kept, i, before)
        u = torch.rand(rows * number, output.uniforms, generator=generator, **options)
        value, seen = x[owner, i], observed[owner, i]
        drawn = output.draw(params, u).to(found.dtype)
        found[:, i] = torch.where(seen, value.to(found.dtype), drawn)
        gain = torch.where(seen, output.log_prob(params, value), 0.0)
        log_weights = log_weights + gain.reshape(rows, number)
        low = effective(log_weights) < 0.5 * number
        if low.any():
            state = kept, found, log_weights, evidence
            kept, found, log_weights, evidence = resampled(generator, state, low)
        before = output.encode(found[:, i], dtype)
    total = torch.logsumexp(log_weights, -1)
    which = torch.multinomial(log_weights.softmax(-1), 1, generator=generator)[:, 0]
    found = found.reshape(rows, number, features)[torch.arange(rows), which]
    return found, evidence + total - math.log(number), effective(log_weights)


def effective(log_weights: Float[Tensor, "rows particles"]) -> Float[Tensor, " rows"]:
    """Return the effective number of particles."""
    return torch.exp(2 * torch.logsumexp(log_weights, -1) - torch.logsumexp(2 * log_weights, -1))


def resampled(generator: Generator, state: Any, low: Bool[Tensor, " rows"]) -> Any:
    """Return what is kept with the particles of some rows drawn again, by systematic resampling."""
    kept, found, log_weights, evidence = state
    rows, number = log_weights.shape
    options: Any = {"dtype": log_weights.dtype, "device": log_weights.device}
    total = torch.logsumexp(log_weights, -1)
    ends = torch.exp(log_weights - total[:, None]).cumsum(-1)
    points = torch.rand(rows, 1, generator=generator, **options) + torch.arange(number, **options)
    which = ((points / number)[:, :, None] > ends[:, None, :-1]).sum(-1)
    which = torch.where(low[:, None], which, torch.arange(number, device=low.device))
    flat = (which + number * torch.arange(rows, device=low.device)[:, None]).reshape(-1)
    evidence = torch.where(low, evidence + total - math.log(number), evidence)
    log_weights = log_weights.masked_fill(low[:, None], 0.0)
    return taken(kept, flat), found[flat], log_weights, evidence


def taken(kept: Any, rows: Tensor) -> Any:
    """Return some rows of every tensor of a tree of tuples, lists and dictionaries."""
    if isinstance(kept, Tensor):
        return kept[rows]
    if isinstance(kept, dict):
        return {name: taken(part, rows) for name, part in kept.items()}
    return type(kept)(taken(part, rows) for part in kept)
