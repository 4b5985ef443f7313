"""What chains walk on: the unconstrained space of a program, or one that a guide maps to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro.infer.autoguide import AutoContinuous
from torch import Tensor
from torch.distributions import biject_to

from deepgen_ppl.posterior import Posterior
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.parameters import given, installed, resolve
from deepgen_ppl.pyro.path import Path
from deepgen_ppl.pyro.program import read_pair
from deepgen_ppl.pyro.structure import Program
from deepgen_ppl.pyro.unconstrained import Potential

Point = dict[str, Tensor]


class Space(NamedTuple):
    """A potential energy and the maps around it.

    Attributes:
        energy: A point to its potential energy, a scalar.
        constrain: A point to the values of the sites, deterministic ones with them.
        unconstrain: Values of the continuous latent sites to a point.
        init: A seed and a starting strategy to a point.
        warp: The way from a guide's space to that of the model; None where it is the model's.
    """

    energy: Callable[[Point], Tensor]
    constrain: Callable[[Point], Point]
    unconstrain: Callable[[Mapping[str, Tensor]], Point]
    init: Callable[..., Point]
    warp: Warp | None = None

    def along(self, path: Path) -> Path:
        """Return a path of the same densities, whose positions are those of this space."""
        if self.warp is None:
            return path
        return Path(path.pair, path.params, path.data, path.rows is not None, warp=self.warp)


class Warp(NamedTuple):
    """The transform T of a fitted autoguide: the way from its space to that of the model.

    Attributes:
        forward: A point of the guide's space to the model's unconstrained sites, and the log
            Jacobian.
        inverse: The model's unconstrained sites to the point.
    """

    forward: Callable[[Tensor], tuple[Point, Tensor]]
    inverse: Callable[[Point], Tensor]


def of_program(program: Program, params: Mapping[str, Tensor], data: Sequence[Any]) -> Space:
    """Return the unconstrained space of a program's continuous latents."""
    potential = Potential(program, params, data)

    def unconstrain(values: Mapping[str, Tensor]) -> Point:
        if not potential.moving:
            return {name: t.inv(values[name]) for name, t in potential.transforms.items()}
        run = potential.run(values, handlers.proper())
        found = {name: run.sites[name] for name in potential.continuous}
        return {n: biject_to(msg["fn"].support).inv(msg["value"]) for n, msg in found.items()}

    return Space(potential.energy, potential.constrain, unconstrain, potential.init)


def of_fit(
    space: Space,
    fit: Any,
    model: Callable[..., Any],
    data: Sequence[Any],
    options: Mapping[str, Any],
) -> Space:
    r"""Return the space that the transform T of a fitted guide maps to that of the model.

    \[ U(u) = U(T(u)) - \log |\det J_T(u)|, \]

    which is close to a standard normal's energy where the guide is close to the posterior.

    Args:
        space: The model's space.
        fit: Fit of an autoguide with a transform, such as `AutoMultivariateNormal` or
            `AutoIAFNormal`.
        model: The model.
        data: The data, tensors.
        options: Further options of `read_pair`.

    Raises:
        TypeError: It is no fit, or its guide has no transform.

    References:
        Hoffman et al.: NeuTra-lizing bad geometry in Hamiltonian Monte Carlo using neural
        transport. 2019. https://arxiv.org/abs/1903.03704
    """
    guide: Any = getattr(fit, "guide", None)
    if not isinstance(guide, AutoContinuous):
        kind = type(guide if hasattr(fit, "guide") else fit).__name__
        raise TypeError(
            "neutra must be the fit of an autoguide with a transform, such as "
            f"AutoMultivariateNormal or AutoIAFNormal, not {kind}."
        )
    pair = read_pair(model, guide, data, **{**options, "params": given(fit)})
    params = {name: x.detach() for name, x in resolve(pair.params, given(fit)).items()}
    prototype: Any = guide.prototype_trace
    names = list(prototype.stochastic_nodes)

    def forward(u: Tensor) -> tuple[Point, Tensor]:
        with installed(pair.params.values(), params) as answers, answers:
            transform: Any = guide.get_transform()
            z = transform(u)
            log_det = transform.log_abs_det_jacobian(u, z)
        sites: Any = guide._unpack_latent(z)
        return {site["name"]: value for site, value in sites}, log_det.sum()

    def inverse(z: Point) -> Tensor:
        joined = torch.cat([z[name].reshape(-1) for name in names])
        with torch.no_grad(), installed(pair.params.values(), params) as answers, answers:
            return guide.get_transform().inv(joined).detach()

    def energy(point: Point) -> Tensor:
        z, log_det = forward(point["u"])
        return space.energy(z) - log_det

    def init(seed: int = 0, strategy: Callable[..., Any] | None = None) -> Point:
        z = space.init(seed, strategy)
        if strategy is not None:
            return {"u": inverse(z)}
        generator = torch.Generator().manual_seed(seed)
        size = sum(z[name].numel() for name in names)
        return {"u": torch.randn(size, generator=generator).to(z[names[0]])}

    return Space(
        energy,
        lambda point: space.constrain(forward(point["u"])[0]),
        lambda values: {"u": inverse(space.unconstrain(values))},
        init,
        Warp(forward, inverse),
    )


def points(
    init: Any, space: Space, program: Program, data: Sequence[Any], num_chains: int, seed: int
) -> list[Point] | None:
    """Return starting points of chains from the draws of a posterior or a fit.

    Args:
        init: A posterior, a `Fit`, or None.
        space: What the chains walk on.
        program: The model.
        data: The data, for the draws of a fit.
        num_chains: How many.
        seed: Seed of the choice of draws.

    Raises:
        TypeError: It is neither.
        ValueError: It lacks a latent site of the model, or has it in another shape.
    """
    from deepgen_ppl.pyro.infer.fit import Fit

    if init is None:
        return None
    if isinstance(init, Fit):
        init = init.posterior(*data, num_samples=num_chains, seed=seed)
    if not isinstance(init, Posterior):
        raise TypeError(f"init must be a Posterior or a Fit, not {type(init).__name__}.")
    flat = init.resample().flat()
    wanted = [name for name, site in program.latents.items() if not site.is_discrete]
    for name in wanted:
        if name not in flat or flat[name].shape[1:] != tuple(program.latents[name].shape):
            found = f"of shape {flat[name].shape[1:]}" if name in flat else "missing"
            raise ValueError(
                f"init is of another model: the latent site '{name}' of shape "
                f"{tuple(program.latents[name].shape)} is {found} in its draws."
            )
    size = len(flat[wanted[0]])
    rng = np.random.default_rng(seed)
    chosen = rng.choice(size, num_chains, replace=size < num_chains)
    values = [{n: torch.as_tensor(flat[n][i]) for n in wanted} for i in chosen]
    with torch.no_grad(), handlers.validation(False):
        return [space.unconstrain(value) for value in values]
