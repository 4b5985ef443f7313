"""The log evidence of each datum given the shared sites: its own latents integrated out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl.pyro.infer.evaluate import over_draws
from deepgen_ppl.pyro.parameters import preserved
from deepgen_ppl.pyro.structure import Program
from deepgen_ppl.pyro.unconstrained import Potential

_NUM_PARTICLES = 128
_DEGREES = 5.0
_WIDEN = 1.25


def log_evidence(
    program: Program,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    draws: Mapping[str, Any],
    seed: int = 0,
) -> dict[str, np.ndarray]:
    r"""Estimate \(\log p(x_i \mid \theta_s)\) of every datum at every draw.

    \[ \log p(x_i \mid \theta_s) \approx \log \frac1K \sum_k
       \frac{p(x_i, z_{ik} \mid \theta_s)}{q_i(z_{ik})}, \qquad z_{ik} \sim q_i \]

    on the unconstrained space, where \(q_i\) is a Student-t with 5 degrees of freedom, the mean of
    that datum's draws and their covariance widened. It is exact when all local latents are
    discrete.

    Args:
        program: The model.
        params: Constrained values of its parameters.
        data: The data, tensors.
        draws: Constrained draws of the continuous latents, shape `(S, ...)`.
        seed: Seed of the particles.

    Returns:
        One array `(S, N)`, under the observed site's name (the data plate's when there are
        several).

    Cost:
        128 runs of the model for each draw, vectorised; one when all local latents are discrete.
    """
    potential = Potential(program, params, data)
    z = {name: torch.as_tensor(value) for name, value in draws.items()}
    z |= {name: transform.inv(z[name]) for name, transform in potential.transforms.items()}
    local = {n: s for n, s in potential.continuous.items() if s.row_plate is not None}
    plate = program.data_plates[0]
    label = next(iter(program.observed)) if len(program.observed) == 1 else plate
    with preserved(program.modules):
        if not local:
            return over_draws(lambda one: {label: potential.rows(one)}, z, seed, pure=True)
        proposal = _StudentT(
            z, {name: site.plates.index(site.row_plate) for name, site in local.items()}
        )

        def one(point: dict[str, Tensor]) -> dict[str, Tensor]:
            def weight(key: Tensor) -> Tensor:
                moved, log_q = proposal.draw(key)
                return potential.rows({**point, **moved}) - log_q

            keys = torch.arange(_NUM_PARTICLES)
            try:
                weights = torch.func.vmap(weight, randomness="different")(keys)
            except Exception:  # what vmap cannot carry runs particle by particle
                weights = torch.stack([weight(key) for key in keys])
            return {label: torch.logsumexp(weights, 0) - math.log(_NUM_PARTICLES)}

        return over_draws(one, z, seed, copies=_NUM_PARTICLES)


class _StudentT:
    """A Student-t of each datum's local latents, all its sites in one vector."""

    def __init__(self, z: Mapping[str, Tensor], axes: Mapping[str, int]) -> None:
        self.axes = axes
        moved = {name: z[name].movedim(1 + axis, 1) for name, axis in axes.items()}
        self.shapes = {name: value.shape[2:] for name, value in moved.items()}
        flat = torch.cat([value.reshape(*value.shape[:2], -1) for value in moved.values()], dim=-1)
        self.loc: Tensor = flat.mean(0)
        centred = flat - self.loc
        covariance = torch.einsum("snd,sne->nde", centred, centred) / max(len(flat) - 1, 1)
        size = flat.shape[-1]
        diagonal = torch.diagonal(covariance, dim1=-2, dim2=-1)
        jitter = torch.diag_embed(1e-4 * diagonal + 1e-8)
        keep = min(1.0, len(flat) / (len(flat) + 5.0 * size))
        covariance = keep * covariance + (1 - keep) * torch.diag_embed(diagonal) + jitter
        # The covariance of a Student-t is its scale matrix times nu / (nu - 2).
        self.root = _WIDEN * torch.linalg.cholesky(covariance)
        self.log_norm = (
            math.lgamma(0.5 * (_DEGREES + size))
            - math.lgamma(0.5 * _DEGREES)
            - 0.5 * size * math.log(_DEGREES * math.pi)
            - self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        )

    def draw(self, key: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return one draw of each local site, and its log density for each datum."""
        size = self.loc.shape[-1]
        normal = torch.randn_like(self.loc + 0 * key)
        chi = torch.randn(len(self.loc), int(_DEGREES)).to(self.loc).square().sum(-1)
        t = normal * (_DEGREES / chi).sqrt().unsqueeze(-1)
        x = self.loc + torch.einsum("nde,ne->nd", self.root, t)
        log_q = self.log_norm - 0.5 * (_DEGREES + size) * torch.log1p(t.square().sum(-1) / _DEGREES)
        sites: dict[str, Tensor] = {}
        start = 0
        for name, shape in self.shapes.items():
            part = x[:, start : start + shape.numel()].reshape(len(self.loc), *shape)
            sites[name] = part.movedim(0, self.axes[name])
            start += shape.numel()
        return sites, log_q
