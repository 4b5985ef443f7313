"""The log evidence of each datum given the shared sites: its own latents integrated out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from deepgen_ppl.pyro import handlers, messages
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.infer.evaluate import over_draws
from deepgen_ppl.pyro.parameters import forked_rng, installed, preserved, private_store
from deepgen_ppl.pyro.probes import with_row
from deepgen_ppl.pyro.structure import Program
from deepgen_ppl.pyro.unconstrained import Potential
from deepgen_ppl.pyro.vectorised import mappable_draws

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

    on the unconstrained space, where \(q_i\) is, half and half, the prior \(p(z_i \mid \theta_s)\)
    and a Student-t with 5 degrees of freedom, the mean of that datum's draws and their covariance
    widened; the Student-t alone where a prior is improper. It is exact when all local latents are
    discrete. Where rows share a local latent (a sum over all of them, say), or one's support
    depends on other sites, nothing can be integrated and the conditional log density of each
    observed site is returned, or nothing where discrete latents have no draws.

    Args:
        program: The model.
        params: Constrained values of its parameters.
        data: The data, tensors.
        draws: Constrained draws of the latents, shape `(S, ...)`; discrete ones may be left out.
        seed: Seed of the particles.

    Returns:
        One array `(S, N)`, under the observed site's name (the data plate's when there are
        several).

    Cost:
        128 runs of the model for each draw, vectorised; one when all local latents are discrete.
    """
    potential = Potential(program, params, data)
    sites, discrete = potential.continuous, tuple(potential.discrete)
    local = {name: site for name, site in sites.items() if site.row_plate is not None}
    label = next(iter(program.observed)) if len(program.observed) == 1 else program.data_plates[0]
    values = {name: torch.as_tensor(value) for name, value in draws.items()}

    def conditional(draw: dict[str, Tensor]) -> dict[str, Tensor]:
        found = program_.log_probs(program, params, draw, data)
        return {name: found[name] for name in program.observed}

    with preserved(program.modules):
        first = {name: value[0] for name, value in values.items() if name in sites}
        if potential.moving or _coupled(program, params, data, first):
            complete = all(name in draws for name in program.latents)
            return over_draws(conditional, values, seed) if complete else {}
        z = {name: t.inv(values[name]) for name, t in potential.transforms.items()}
        if not local:
            z = z or {"draw number": torch.arange(len(next(iter(values.values()))))}
            return over_draws(lambda one: {label: potential.rows(one)}, z, seed, pure=True)
        proposal = _StudentT(
            z, {name: site.plates.index(site.row_plate) for name, site in local.items()}
        )
        proper = _proper(program, params, data, tuple(local))
        hidden = [*program.observed, *program.factors]
        prior_ = replace(program, fn=poutine.block(program.fn, hide=hidden))

        def one(point: dict[str, Tensor]) -> dict[str, Tensor]:
            shared = {n: potential.transforms[n](point[n]) for n in sites if n not in local}

            def weigh(moved: dict[str, Tensor]) -> Tensor:
                place = {**point, **moved}
                here, jacobian = potential.values(place)[0], potential.local_jacobian(place)
                log_p, _ = program_.log_density(program, params, here, data, discrete)
                log_q = proposal.log_prob(moved)
                if proper:
                    log_prior, _ = program_.log_density(prior_, params, here, data, discrete)
                    log_q = torch.logaddexp(log_prior + jacobian, log_q) - math.log(2)
                return log_p + jacobian - log_q

            def weights(_: Any) -> Tensor:
                moved = [proposal.draw()]
                if proper:
                    drawn = program_.simulate(program, params, data, shared, redraw=())
                    moved += [{n: potential.transforms[n].inv(drawn[n]) for n in local}]
                return torch.stack([weigh(sites) for sites in moved])

            count = _NUM_PARTICLES // 2 if proper else _NUM_PARTICLES
            try:
                with mappable_draws():
                    found = torch.func.vmap(weights, randomness="different")(torch.arange(count))
            except Exception:  # what vmap cannot carry runs particle by particle
                found = torch.stack([weights(None) for _ in range(count)])
            found = found.reshape(_NUM_PARTICLES, -1)
            return {label: torch.logsumexp(found, 0) - math.log(_NUM_PARTICLES)}

        return over_draws(one, z, seed, copies=_NUM_PARTICLES)


def _proper(
    program: Program, params: Mapping[str, Tensor], data: Sequence[Any], names: Sequence[str]
) -> bool:
    """Tell whether all of some sites can be drawn from their prior."""
    with _quiet(), installed(program.params.values(), params) as answers:
        run = program_.call(program, data, answers, handlers.feasible())
    return not any(messages.is_improper(run.sites[name]["fn"]) for name in names)


def _coupled(
    program: Program,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    point: Mapping[str, Tensor],
) -> bool:
    """Tell whether moving one row's latents changes another row's log density."""
    local = {n: s for n, s in program.latents.items() if s.row_plate is not None}
    if any(site.row_plate not in site.plates for site in local.values()):
        return True  # a sequential plate: each row has sites of its own
    axes = {name: site.plates.index(site.row_plate) for name, site in local.items()}
    shared = {name: value for name, value in point.items() if name not in local}
    size = program.num_rows or 0
    if size < 2:
        return False
    with _quiet():
        runs = [
            program_.simulate(program, params, data, shared, redraw=(), stand_in=True)
            for _ in range(5)
        ]
        drawn, *others = ({n: run[n].movedim(a, 0) for n, a in axes.items()} for run in runs)
        other = {name: torch.cat([values[name] for values in others]) for name in drawn}
        rest = {n: runs[0][n] for n in program.latents if n not in local}

        def density(rows: Mapping[str, Tensor]) -> Tensor:
            values = {**rest, **{name: v.movedim(0, axes[name]) for name, v in rows.items()}}
            return program_.log_density(program, params, values, data)[0]

        before, after = density(drawn), density(with_row(drawn, other, size // 2))
    change = torch.abs(after - before) > 1e-4 * (1.0 + torch.abs(before))
    change[size // 2] = False
    return bool(change.any())


@contextmanager
def _quiet() -> Iterator[None]:
    """Run a program for a look at it: nothing is left behind, and no gradients are made."""
    with torch.no_grad(), private_store(), handlers.validation(False), forked_rng(0):
        yield


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

    def draw(self) -> dict[str, Tensor]:
        """Return one draw of each local site."""
        chi = torch.randn(len(self.loc), int(_DEGREES)).to(self.loc).square().sum(-1)
        t = torch.randn(self.loc.shape).to(self.loc) * (_DEGREES / chi).sqrt().unsqueeze(-1)
        x = self.loc + torch.einsum("nde,ne->nd", self.root, t)
        sites: dict[str, Tensor] = {}
        start = 0
        for name, shape in self.shapes.items():
            part = x[:, start : start + shape.numel()].reshape(len(self.loc), *shape)
            sites[name] = part.movedim(0, self.axes[name])
            start += shape.numel()
        return sites

    def log_prob(self, sites: Mapping[str, Tensor]) -> Tensor:
        """Return the log density of one point for each datum."""
        moved = [sites[name].movedim(axis, 0) for name, axis in self.axes.items()]
        x = torch.cat([value.reshape(len(self.loc), -1) for value in moved], dim=-1)
        t = torch.linalg.solve_triangular(self.root, (x - self.loc).unsqueeze(-1), upper=False)
        size = self.loc.shape[-1]
        square = t.squeeze(-1).square().sum(-1)
        return self.log_norm - 0.5 * (_DEGREES + size) * torch.log1p(square / _DEGREES)
