"""`check_flow`: the laws of a flow, tried at random points."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from numpyro.distributions import constraints
from numpyro.distributions.transforms import ComposeTransform

from deepgen_ppl import flow_checks
from deepgen_ppl.diagnosis import Diagnosis
from deepgen_ppl.flow_diagnosis import Found, diagnose_flow
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.flows.flow import Flow
from deepgen_ppl.numpyro.flows.layer import Context, Layer


def check_flow(
    flow: Any,
    context: Context = None,
    *,
    num_points: int = 64,
    tolerance: float | None = None,
    seed: int | Array = 0,
) -> Diagnosis:
    r"""Check the laws of a flow at random points.

    What it pushes it pulls back; its log determinant is that of automatic differentiation; the
    density of draws is their log_prob; the density of one or two features integrates to one; and
    the largest singular values of its Jacobian and of that of its inverse leave digits.

    Args:
        flow: a flow or a layer of `dg.flows`, another function of a context that returns a
            `TransformedDistribution`, or such a distribution.
        context: one context, shape (context,), where the flow has one.
        num_points: number of random points.
        tolerance: largest relative error; a few roots of the precision of its numbers when None.
        seed: seed of the points, an int or a random key.

    Returns:
        A diagnosis; `diagnosis.ok` is its verdict.

    Raises:
        TypeError: it is no flow.
        ValueError: the context is a batch, or what the flow refuses.

    Cost:
        A Jacobian of D columns at each point, and 360,000 densities for two features.

    References:
        Behrmann, Vicol, Wang, Grosse, Jacobsen: Understanding and mitigating exploding inverses in
        invertible neural networks. AISTATS 2021. https://arxiv.org/abs/2006.09347

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> dg.check_flow(dg.flows.RealNVP(2)).ok
        True
    """
    flow_checks.whole("num_points", num_points)
    density = _density(flow, context)
    transform = ComposeTransform(density.transforms)
    keys = random.split(as_key(seed), 3)
    z = jnp.asarray(density.base_dist.sample(keys[0], (num_points,)))
    size = z[0].size

    @jax.jit
    def tried(z: Array) -> tuple[Array, ...]:
        x = transform(z)
        jacobian = jax.vmap(jax.jacfwd(transform))(z).reshape(num_points, -1, size)  # type: ignore[arg-type]
        log_det = jnp.asarray(transform.log_abs_det_jacobian(z, x))
        drawn = jnp.asarray(density.base_dist.log_prob(z)) - log_det
        return transform.inv(x), log_det, jacobian, density.log_prob(x), drawn  # type: ignore[return-value]

    back, *rest = tried(z)
    log_det, jacobian, log_prob, drawn = (_numbers(value) for value in rest)
    integral = _integral(density, keys[1])
    found = Found(_flat(z), _flat(back), log_det, jacobian, log_prob, drawn, integral)
    precision = float(jnp.finfo(z.dtype).eps)
    limit = (
        8.0 * precision**0.5 if tolerance is None else flow_checks.positive("tolerance", tolerance)
    )
    title = f"{type(flow).__name__} of {size} features, {num_points} points"
    return diagnose_flow(title, found, limit, precision)


def _density(flow: Any, context: Context) -> dist.TransformedDistribution:
    flow = Flow(flow) if isinstance(flow, Layer) else flow
    density = flow
    if not isinstance(flow, dist.Distribution) and callable(flow):
        density = flow() if context is None else flow(context)
    if not isinstance(density, dist.TransformedDistribution):
        raise TypeError(
            "check_flow takes a flow, a layer, or a TransformedDistribution, not "
            f"{type(flow).__name__}. Put a transform into TransformedDistribution(base, transform)."
        )
    if density.batch_shape:
        raise ValueError(
            f"check_flow looks at one density, but this one has batch shape {density.batch_shape}. "
            "Pass one context."
        )
    return density


def _integral(density: dist.TransformedDistribution, key: Array) -> float | None:
    support = density.support
    support = getattr(support, "base_constraint", support)
    size = int(np.prod(density.event_shape))
    if support is not constraints.real or size > 2:
        return None
    draws = _flat(jax.jit(density.sample, static_argnums=1)(key, (4096,)))
    low, high = draws.min(0), draws.max(0)
    low, high = low - 0.6 * (high - low), high + 0.6 * (high - low)
    steps = 4000 if size == 1 else 600
    axes = [np.linspace(a, b, steps) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, *density.event_shape)
    dtype = jnp.asarray(density.base_dist.mean).dtype
    log_prob = jax.jit(density.log_prob)(jnp.asarray(grid, dtype))
    return float(np.exp(_numbers(log_prob)).sum() * np.prod((high - low) / (steps - 1)))


def _numbers(value: Any) -> np.ndarray:
    return np.asarray(value, np.float64)


def _flat(value: Any) -> np.ndarray:
    return _numbers(value).reshape(len(value), -1)
