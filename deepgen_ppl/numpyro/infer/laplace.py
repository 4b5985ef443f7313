"""Laplace's approximation: the normal that a trained `AutoLaplaceApproximation` stands for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions.util import cholesky_of_inverse
from numpyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal

from deepgen_ppl.numpyro.program import Inputs, Pair, log_weights


def normal_guide(guide: Callable | None) -> Callable | None:
    """Return the normal guide that an `AutoLaplaceApproximation` becomes, and any other as it is.

    Args:
        guide: a guide.
    """
    if not isinstance(guide, AutoLaplaceApproximation):
        return guide
    return AutoMultivariateNormal(guide.model, prefix=guide.prefix, init_loc_fn=guide.init_loc_fn)


def approximate(
    pair: Pair,
    guide: AutoLaplaceApproximation,
    params: Mapping[str, Any],
    inputs: Inputs,
    key: Array,
) -> tuple[Callable, dict[str, Any]]:
    r"""Return the normal guide at the mode that training found, and all its parameters.

    $$q(z) = \mathcal N\bigl(\hat z, H^{-1}\bigr), \qquad
    H = -\nabla^2 \log p(x, T(z))\, |\det J_T(z)| \;\text{at}\; \hat z$$

    on the unconstrained space. Where H is not positive definite it warns and returns the guide
    that was trained, a point.

    Args:
        pair: model and guide.
        guide: the guide that was trained.
        params: learned values (constrained) and mutable state.
        inputs: inputs at all rows.
        key: random key.

    Cost:
        One Hessian of the log density of the whole data.

    References:
        Tierney, Kadane: Accurate approximations for posterior moments and marginal densities. 1986.
        https://doi.org/10.1080/01621459.1986.10478240
    """
    name = f"{guide.prefix}_loc"

    @jax.jit
    def root(inputs: Inputs, params: dict[str, Any]) -> Array:
        def energy(loc: Array) -> Array:
            return -log_weights(pair, {**params, name: loc}, inputs, key=key).total

        return cholesky_of_inverse(guide._hessian_fn(energy, params[name]))

    scale_tril = root(inputs, dict(params))
    if not bool(jnp.all(jnp.isfinite(scale_tril))):
        warnings.warn(
            "the Hessian at the point that training found is not positive definite: the fit keeps "
            "the point, without a normal around it. Train longer, or take AutoNormal.",
            UserWarning,
            stacklevel=3,
        )
        return guide, dict(params)
    found = {**params, f"{guide.prefix}_scale_tril": scale_tril}
    return normal_guide(guide) or guide, found
