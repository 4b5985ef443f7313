"""Laplace's approximation: the normal that a trained `AutoLaplaceApproximation` stands for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal
from torch import Tensor

from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.parameters import snapshot
from deepgen_ppl.pyro.program import Pair, log_weights, read_pair


def normal_guide(guide: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """Return the normal guide that an `AutoLaplaceApproximation` becomes, and any other as it is.

    Args:
        guide: a guide.
    """
    if not isinstance(guide, AutoLaplaceApproximation):
        return guide
    return AutoMultivariateNormal(guide.model)


def approximate(
    pair: Pair,
    guide: AutoLaplaceApproximation,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    model: Callable[..., Any],
    model_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Callable[..., Any], dict[str, Tensor]]:
    r"""Return the normal guide at the mode that training found, and all its parameters.

    $$q(z) = \mathcal N\bigl(\hat z, H^{-1}\bigr), \qquad
    H = -\nabla^2 \log p(x, T(z))\, |\det J_T(z)| \;\text{at}\; \hat z$$

    on the unconstrained space. Where H is not positive definite it warns and returns the guide
    that was trained, a point.

    Args:
        pair: model and guide.
        guide: the guide that was trained.
        params: learned values (constrained) and buffers.
        data: the full data.
        model: the model.
        model_kwargs: constants passed by name.

    Cost:
        One Hessian of the log density of the whole data.

    References:
        Tierney, Kadane: Accurate approximations for posterior moments and marginal densities. 1986.
        https://doi.org/10.1080/01621459.1986.10478240
    """
    name = next(p.name for p in pair.params.values() if p.leaf is guide.loc)

    def energy(loc: Tensor) -> Tensor:
        weights = log_weights(pair, {**params, name: loc}, data, None, 0)
        return -(weights.shared + weights.scale * weights.rows.sum())

    loc = params[name].detach()
    with handlers.validation(False):
        precision = torch.autograd.functional.hessian(energy, loc)
    factor, failed = torch.linalg.cholesky_ex(precision)
    scale_tril, again = torch.linalg.cholesky_ex(torch.cholesky_inverse(factor))
    if int(failed) or int(again) or not bool(torch.isfinite(scale_tril).all()):
        warnings.warn(
            "the Hessian at the point that training found is not positive definite: the fit keeps "
            "the point, without a normal around it. Train longer, or take AutoNormal.",
            UserWarning,
            stacklevel=3,
        )
        return guide, dict(params)
    scale = scale_tril.diagonal()
    values = {"loc": loc, "scale": scale, "scale_tril": scale_tril / scale[:, None]}
    normal = normal_guide(guide) or guide
    found = read_pair(model, normal, data, model_kwargs=model_kwargs, params=dict(params),
                      prior=True, enumerated=True)  # fmt: skip
    with torch.no_grad():
        for param in found.params.values():
            for module, key in param.slots:
                if module is normal:
                    param.leaf.copy_(param.inverse(values[key.removesuffix("_unconstrained")]))
    kept = {n: value for n, value in params.items() if n in found.params}
    return normal, {**snapshot(found.params.values()), **kept}
