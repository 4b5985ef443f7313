"""One pair of programs in both languages, read by both wings, with NumPy in and out."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from deepgen_ppl.numpyro import program as numpyro_program
from deepgen_ppl.numpyro.unconstrained import Potential as NumPyroPotential
from deepgen_ppl.pyro import program as pyro_program
from deepgen_ppl.pyro.unconstrained import Potential as PyroPotential

Arrays = dict[str, np.ndarray]


class Side(NamedTuple):
    """A model and guide on one wing.

    Attributes:
        pair: As the wing's `read_pair` returns it.
        params: Initial parameters, constrained.
        log_density: Program, latents -> log density by row and shared.
        potential: Unconstrained latents -> potential energy and its gradient.
        constrain: Unconstrained latents -> values of all latent and deterministic sites.
    """

    pair: Any
    params: Mapping[str, Any]
    log_density: Callable[[Any, Arrays], tuple[np.ndarray, np.ndarray]]
    potential: Callable[[Arrays], tuple[float, Arrays]]
    constrain: Callable[[Arrays], Arrays]


def ratio(side: Side, latents: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Log density of the model less that of the guide; a guide without data plate has no rows."""
    rows, shared = side.log_density(side.pair.model, latents)
    guide_rows, guide_shared = side.log_density(side.pair.guide, latents)
    return rows - guide_rows if guide_rows.size else rows, shared - guide_shared


def to_numpy(tree: Mapping[str, Any]) -> Arrays:
    """Return a flat dict with its arrays or tensors as NumPy arrays."""
    return {
        name: x.detach().numpy().copy() if isinstance(x, torch.Tensor) else np.array(x)
        for name, x in tree.items()
    }


def numpyro_side(model: Any, guide: Any, data: tuple[np.ndarray, ...]) -> Side:
    """The NumPyro wing's view of a pair."""
    pair = numpyro_program.read_pair(model, guide, data, prior=True)
    params = numpyro_program.init_params(pair, data)

    def log_density(program: Any, latents: Arrays) -> tuple[np.ndarray, np.ndarray]:
        values = {name: jnp.asarray(x) for name, x in latents.items()}
        rows, shared = numpyro_program.log_density(program, params, values, data)
        return np.asarray(rows), np.asarray(shared)

    @cache
    def energy() -> tuple[Any, Any]:
        found = NumPyroPotential(pair.model, params, pair.model.inputs(data))
        return jax.jit(jax.value_and_grad(found.energy)), jax.jit(found.constrain)

    def potential(z: Arrays) -> tuple[float, Arrays]:
        values = {name: jnp.asarray(x) for name, x in z.items()}
        value, gradient = energy()[0](values)
        return float(value), to_numpy(gradient)

    def constrain(z: Arrays) -> Arrays:
        return to_numpy(energy()[1]({name: jnp.asarray(x) for name, x in z.items()}))

    return Side(pair, params, log_density, potential, constrain)


def pyro_side(model: Any, guide: Any, data: tuple[np.ndarray, ...]) -> Side:
    """The Pyro wing's view of a pair."""
    tensors = tuple(torch.as_tensor(x) for x in data)
    pair = pyro_program.read_pair(model, guide, tensors, prior=True)
    params = {name: p.value().detach() for name, p in pair.params.items()}

    def log_density(program: Any, latents: Arrays) -> tuple[np.ndarray, np.ndarray]:
        values = {name: torch.as_tensor(x) for name, x in latents.items()}
        rows, shared = pyro_program.log_density(program, params, values, tensors)
        return rows.detach().numpy(), shared.detach().numpy()

    @cache
    def energy() -> Any:
        return PyroPotential(pair.model, params, tensors)

    def potential(z: Arrays) -> tuple[float, Arrays]:
        values = {name: torch.as_tensor(x).requires_grad_() for name, x in z.items()}
        value = energy().energy(values)
        gradient = torch.autograd.grad(value, list(values.values()))
        return value.item(), to_numpy(dict(zip(values, gradient, strict=True)))

    def constrain(z: Arrays) -> Arrays:
        return to_numpy(energy().constrain({name: torch.as_tensor(x) for name, x in z.items()}))

    return Side(pair, params, log_density, potential, constrain)
