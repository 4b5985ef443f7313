"""What chains walk on: the unconstrained space of a program, or one that a guide maps to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from numpyro.infer.autoguide import AutoContinuous
from numpyro.infer.initialization import init_to_value

from deepgen_ppl.kept import Same
from deepgen_ppl.numpyro.data import Inputs, as_arguments, as_inputs
from deepgen_ppl.numpyro.path import Path
from deepgen_ppl.numpyro.structure import Program, autoguides
from deepgen_ppl.numpyro.unconstrained import Potential
from deepgen_ppl.posterior import Posterior

Point = dict[str, Array]

_GUIDE = "neutra guide"  # among the parameters: those of the guide, which are inputs too


class Warp:
    """The transform T of a fitted autoguide: the way from its space to that of the model.

    Args:
        guide: The guide.

    Attributes:
        static: What compiled code depends on.
    """

    def __init__(self, guide: AutoContinuous) -> None:
        self.guide, self.static = guide, Same(guide)

    def forward(self, params: Mapping[str, Any], u: Array) -> tuple[Point, Float[Array, ""]]:
        """Return the model's unconstrained sites at a point, and the log Jacobian.

        Args:
            params: Parameters, those of the guide among them.
            u: The point of the guide's space.
        """
        transform: Any = self.guide.get_transform(dict(params[_GUIDE]))
        z = transform(u)
        log_det = jnp.sum(transform.log_abs_det_jacobian(u, z))
        sites: Any = self.guide._unpack_latent(z)
        return sites, log_det

    def inverse(self, params: Mapping[str, Any], z: Point) -> Float[Array, " D"]:
        """Return the point of the guide's space at the model's unconstrained sites.

        Raises:
            ValueError: The transform has no inverse.
        """
        transform: Any = self.guide.get_transform(dict(params[_GUIDE]))
        order: Any = self.guide._init_locs  # the guide joins its sites in this order
        try:
            return transform.inv(jnp.concatenate([z[n].reshape(-1) for n in order]))
        except NotImplementedError as error:
            raise ValueError(
                f"the transform of {type(self.guide).__name__} has no inverse, so neutra= goes "
                "without init=, init_strategy= and ParallelTempering."
            ) from error


class Warped:
    r"""The space that the transform T of a fitted guide maps to that of the model.

    \[ U(u) = U(T(u)) - \log |\det J_T(u)|, \]

    which is close to a standard normal's energy where the guide is close to the posterior.

    Args:
        potential: The model's space.
        warp: The transform.
        params: Parameters, those of the guide among them.

    References:
        Hoffman et al.: NeuTra-lizing bad geometry in Hamiltonian Monte Carlo using neural
        transport. 2019. https://arxiv.org/abs/1903.03704
    """

    def __init__(self, potential: Potential, warp: Warp, params: Mapping[str, Any]) -> None:
        self.potential, self.warp, self.params = potential, warp, params

    def energy(self, u: Point) -> Float[Array, ""]:
        """Return the potential energy of a point, a scalar."""
        z, log_det = self.warp.forward(self.params, u["u"])
        return self.potential.energy(z) - log_det

    def constrain(self, u: Point) -> dict[str, Array]:
        """Return the sites' values at a point, deterministic ones included."""
        return self.potential.constrain(self.warp.forward(self.params, u["u"])[0])

    def init(self, key: Array, strategy: Callable | None = None) -> Point:
        """Return one starting point: standard normal, or where the strategy says."""
        z = self.potential.init(key, strategy)
        if strategy is not None:
            return {"u": self.warp.inverse(self.params, z)}
        flat, _ = ravel_pytree(z)
        return {"u": random.normal(key, flat.shape, flat.dtype)}


class Space:
    """The space of one call of `mcmc`: what is compiled, apart from the arrays it is run with.

    Args:
        program: The model.
        params: Values of its parameters and mutable state.
        fit: Fit of an autoguide whose transform is used, or None.

    Attributes:
        params: Arrays that `potential` takes: the model's parameters, with the guide's.
        static: What compiled code depends on beside the program and the shapes.

    Raises:
        TypeError: It is no fit, or its guide has no transform.
    """

    def __init__(self, program: Program, params: Mapping[str, Any], fit: Any = None) -> None:
        self.program, self.params = program, dict(params)
        self.warp = None if fit is None else Warp(_guide_of(fit))
        self.static = None if self.warp is None else self.warp.static
        if fit is not None:
            own = {n: jax.tree.map(jnp.asarray, v) for n, v in fit.params.items()}
            self.params[_GUIDE] = own

    def potential(self, params: Mapping[str, Any], inputs: Inputs) -> Any:
        """Return the energy and the maps around it; parameters and inputs may be traced."""
        own = {name: value for name, value in params.items() if name != _GUIDE}
        potential = Potential(self.program, own, inputs)
        return potential if self.warp is None else Warped(potential, self.warp, params)

    def along(self, path: Path) -> Path:
        """Return a path of the same densities, whose positions are those of this space."""
        if self.warp is None:
            return path
        params = {**path.params, _GUIDE: self.params[_GUIDE]}
        return replace(path, params=params, warp=self.warp)


def starting_point(potential: Any, strategy: tuple[Any, Any], key: Array) -> Point:
    """Return a starting point by a strategy that is a function and its keywords, or None.

    Args:
        potential: What the chain walks on.
        strategy: Inputs; the function `from_draws` takes one of its draws.
        key: Random key.
    """
    fn, keywords = as_arguments(strategy)
    if fn is from_draws:
        values = keywords["values"]
        index = random.randint(key, (), 0, len(next(iter(values.values()))))
        fn, keywords = init_to_value, {"values": jax.tree.map(lambda v: v[index], values)}
    return potential.init(key, None if fn is None else partial(fn, **keywords))


def from_draws(
    init: Any, program: Program, data: Sequence[Any], num: int, seed: int | Array
) -> tuple[Any, Any]:
    """Return the strategy of starting from the draws of a posterior or a fit.

    Args:
        init: A posterior or a `Fit`.
        program: The model.
        data: The data, for the draws of a fit.
        num: How many draws to start from.
        seed: Seed of the choice of draws.

    Raises:
        TypeError: It is neither.
        ValueError: It lacks a latent site of the model, or has it in another shape.
    """
    number = seed if isinstance(seed, int) else 0
    init = drawn(init, data, num, number)
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
    chosen = np.random.default_rng(number).choice(size, num, replace=size < num)
    return as_inputs((from_draws, {"values": {name: flat[name][chosen] for name in wanted}}))


def drawn(init: Any, data: Sequence[Any], num: int, seed: int) -> Posterior:
    """Return draws to start from: a posterior, or some of a fit.

    Args:
        init: A posterior or a `Fit`.
        data: The data, for the draws of a fit.
        num: How many draws of a fit.
        seed: Seed of these.

    Raises:
        TypeError: It is neither.
    """
    from deepgen_ppl.numpyro.infer.fit import Fit

    if isinstance(init, Fit):
        init = init.posterior(*data, num_samples=num, seed=seed)
    if not isinstance(init, Posterior):
        raise TypeError(f"init must be a Posterior or a Fit, not {type(init).__name__}.")
    return init


def _guide_of(fit: Any) -> AutoContinuous:
    found = autoguides(getattr(fit, "guide", None))
    if len(found) != 1 or not isinstance(found[0], AutoContinuous):
        kind = type(getattr(fit, "guide", None) if hasattr(fit, "guide") else fit).__name__
        raise TypeError(
            "neutra must be the fit of an autoguide with a transform, such as "
            f"AutoMultivariateNormal or AutoIAFNormal, not {kind}."
        )
    return found[0]
