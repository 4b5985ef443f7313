"""Likelihoods: from the outputs of a decoder to the language's own distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jaxtyping import Float

from deepgen_ppl import likelihoods
from deepgen_ppl.likelihoods import Likelihood
from deepgen_ppl.numpyro.distributions import (
    BernoulliLogits,
    ContinuousBernoulli,
    DiscretizedLogistic,
)

Raw = Float[Array, "*batch_and_features outputs"]


def native(likelihood: Likelihood, raw: Raw, own: Any) -> dist.Distribution:
    """Return the distribution of every feature.

    Args:
        likelihood: the likelihood.
        raw: outputs of the decoder, those of one feature on the last axis.
        own: the values that it learns beside the decoder, by name.
    """
    return _NATIVE[type(likelihood)](likelihood, raw, own)


def encoded(likelihood: Likelihood | None, x: Array, mask: Array | None) -> Array:
    """Return data as an encoder sees them: floats, one-hot states, zeros where they are missing."""
    if likelihood is None:
        found = x
    elif likelihood.states:
        found = jax.nn.one_hot(x.astype(int), likelihood.states, dtype=float)
    else:
        found = likelihood.encoded(jnp.asarray(x, jnp.result_type(x, jnp.float32)))
    if mask is None:
        return found
    cells = jnp.asarray(mask, bool)
    return jnp.where(cells.reshape(*cells.shape, *(1,) * (found.ndim - cells.ndim)), found, 0.0)


def as_observed(likelihood: Likelihood | None, x: Array) -> Array:
    """Return data as a likelihood takes them: states as integers."""
    return x.astype(int) if likelihood is not None and likelihood.states else x


def mean(likelihood: Likelihood | None, fn: dist.Distribution) -> Array:
    """Return the mean of every feature, or the probabilities of its states."""
    states = likelihood is not None and likelihood.states
    return jnp.asarray(fn.probs if states else fn.mean)  # type: ignore[attr-defined]


def _scale(where: float | str, raw: Raw, own: Any) -> Any:
    if where == "decoder":
        return jnp.exp(raw[..., 1])
    return jnp.exp(own["log_scale"]) if isinstance(where, str) else where


def _bernoulli(_: likelihoods.Bernoulli, raw: Raw, own: Any) -> Any:
    return BernoulliLogits(raw[..., 0])


def _continuous_bernoulli(_: likelihoods.ContinuousBernoulli, raw: Raw, own: Any) -> Any:
    return ContinuousBernoulli(logits=raw[..., 0])


def _gaussian(kind: likelihoods.Gaussian, raw: Raw, own: Any) -> Any:
    return dist.Normal(raw[..., 0], _scale(kind.scale, raw, own))


def _student_t(kind: likelihoods.StudentT, raw: Raw, own: Any) -> Any:
    df = jnp.exp(own["log_df"]) if isinstance(kind.df, str) else kind.df
    return dist.StudentT(df, raw[..., 0], _scale(kind.scale, raw, own))


def _discretized_logistic(kind: likelihoods.DiscretizedLogistic, raw: Raw, own: Any) -> Any:
    if kind.components == 1:
        return DiscretizedLogistic(raw[..., 0], raw[..., 1], kind.levels)
    logits, locs, log_scales = jnp.split(raw, 3, axis=-1)
    each = DiscretizedLogistic(locs, log_scales, kind.levels)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), each)


def _categorical(_: likelihoods.Categorical, raw: Raw, own: Any) -> Any:
    return dist.Categorical(logits=raw)


def _inflated(base: Any, logit: Array | None) -> Any:
    return base if logit is None else dist.ZeroInflatedDistribution(base, gate_logits=logit)


def _poisson(kind: likelihoods.Poisson, raw: Raw, own: Any) -> Any:
    return _inflated(
        dist.Poisson(jnp.exp(raw[..., 0])), raw[..., 1] if kind.zero_inflated else None
    )


def _negative_binomial(kind: likelihoods.NegativeBinomial, raw: Raw, own: Any) -> Any:
    if kind.concentration == "decoder":
        log_concentration = raw[..., 1]
    elif isinstance(kind.concentration, str):
        log_concentration = own["log_concentration"]
    else:
        log_concentration = jnp.log(jnp.asarray(kind.concentration, raw.dtype))
    log_concentration = jnp.broadcast_to(log_concentration, raw.shape[:-1])
    odds = raw[..., 0] - log_concentration
    base = dist.NegativeBinomialLogits(jnp.exp(log_concentration), logits=odds)
    return _inflated(base, raw[..., -1] if kind.zero_inflated else None)


_NATIVE: dict[type, Callable[..., Any]] = {
    likelihoods.Bernoulli: _bernoulli,
    likelihoods.ContinuousBernoulli: _continuous_bernoulli,
    likelihoods.Gaussian: _gaussian,
    likelihoods.StudentT: _student_t,
    likelihoods.DiscretizedLogistic: _discretized_logistic,
    likelihoods.Categorical: _categorical,
    likelihoods.Poisson: _poisson,
    likelihoods.NegativeBinomial: _negative_binomial,
}
