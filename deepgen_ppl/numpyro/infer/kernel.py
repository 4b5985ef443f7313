"""NumPyro's own kernels on a program's potential: one chain of them as two pure functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Int
from numpyro.infer import HMC, NUTS
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import ParamInfo

from deepgen_ppl.numpyro.data import as_arguments
from deepgen_ppl.numpyro.infer.space import starting_point
from deepgen_ppl.numpyro.unconstrained import Potential

_NAMES = {"nuts": NUTS, "hmc": HMC}
_STATISTICS = {
    "potential_energy": "lp",
    "energy": "energy",
    "diverging": "diverging",
    "num_steps": "n_steps",
    "accept_prob": "acceptance_rate",
}


def resolve(
    kernel: Any, target_accept_prob: float | None = None
) -> tuple[type[MCMCKernel], dict[str, Any]]:
    """Return the kernel class a user means, and its options.

    Args:
        kernel: `"nuts"`, `"hmc"`, a kernel class of NumPyro, or `functools.partial` of one.
        target_accept_prob: Takes the place of the kernel's own option.

    Raises:
        TypeError: An instance (which is bound to a model), or no kernel that a potential can drive.
        ValueError: An unknown name, or an option the kernel lacks.

    Example:
        >>> resolve("nuts", 0.9)
        (<class 'numpyro.infer.hmc.NUTS'>, {'target_accept_prob': 0.9})
    """
    options: dict[str, Any] = {}
    while isinstance(kernel, functools.partial):
        if kernel.args:
            raise TypeError(
                "kernel=partial(...) takes options by name only; the model is the one given to "
                "mcmc."
            )
        options = {**kernel.keywords, **options}
        kernel = kernel.func
    if isinstance(kernel, str):
        if kernel not in _NAMES:
            raise ValueError(
                f"Unknown kernel '{kernel}'. Choose 'auto', 'nuts', 'hmc', 'chees', 'mala', "
                "'langevin' or 'rwm', or pass a kernel class."
            )
        kernel = _NAMES[kernel]
    if not isinstance(kernel, type):
        name = type(kernel).__name__
        raise TypeError(
            f"kernel is an instance of {name}, which is bound to a model already. Pass the class, "
            f"or its options as functools.partial({name}, ...)."
        )
    known = inspect.signature(kernel).parameters
    if not issubclass(kernel, MCMCKernel) or "potential_fn" not in known or _is_ensemble(kernel):
        raise TypeError(
            f"kernel must be 'nuts', 'hmc' or a kernel of NumPyro that moves one chain on a "
            f"potential (NUTS, HMC, BarkerMH, SA), not {kernel.__name__}."
        )
    if "model" in options or "potential_fn" in options:
        raise TypeError(
            "kernel=partial(...) must not bind a model; the model is the one given to mcmc."
        )
    if target_accept_prob is not None:
        options["target_accept_prob"] = target_accept_prob
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{kernel.__name__} has no option {', '.join(map(repr, unknown))}.")
    return kernel, options


class Chain(NamedTuple):
    """One chain of a kernel as pure functions, to be compiled once and run from any data.

    Attributes:
        kernel: the kernel's class.
        make: (params, inputs) -> the program's potential.
        num_warmup: steps of adaptation.
        chunk: most draws that one call of `advance` returns.
    """

    kernel: type[MCMCKernel]
    make: Callable[[Mapping[str, Any], Any], Potential]
    num_warmup: int
    chunk: int

    def start(
        self,
        inputs: Any,
        params: Any,
        options: Any,
        strategy: tuple[Any, Any],
        key: Array,
        attempt: Int[Array, ""],
    ) -> tuple[Any, dict[str, Array]]:
        """Return the kernel's state at a new starting point, and the point by site.

        Args:
            inputs: the program's inputs.
            params: its parameters.
            options: the kernel's options.
            strategy: function and keyword arguments of the starting strategy.
            key: random key of the chain.
            attempt: number of starting points tried before.
        """
        potential = self.make(params, inputs)
        init_key, kernel_key = random.split(random.fold_in(key, attempt))
        z = starting_point(potential, strategy, init_key)
        point, energy = _flatten(potential, z, options)
        kernel = self._build(energy, options)
        if self._is_hamiltonian and not getattr(kernel, "_find_heuristic_step_size", False):
            # The energy is found by the first call of `advance`, whose code holds it anyway.
            point = ParamInfo(point, jnp.zeros(()), jax.tree.map(jnp.zeros_like, point))
        return kernel.init(kernel_key, self.num_warmup, point, (), {}), z

    def advance(
        self,
        inputs: Any,
        params: Any,
        options: Any,
        z: dict[str, Array],
        state: Any,
        count: Int[Array, ""],
        thinning: Int[Array, ""],
    ) -> tuple[Any, dict[str, Array]]:
        """Make `count` draws, `thinning` steps each; return the state and the draws' record.

        Args:
            inputs: the program's inputs.
            params: its parameters.
            options: the kernel's options.
            z: a point by site, for its shapes.
            state: the kernel's state.
            count: number of draws, at most `chunk`.
            thinning: steps between draws.
        """
        potential = self.make(params, inputs)
        _, energy = _flatten(potential, z, options)
        kernel = self._build(energy, options)
        point = getattr(state, kernel.sample_field)
        if self._is_hamiltonian:

            def found(state: Any) -> Any:
                value, gradient = jax.value_and_grad(energy)(state.z)
                return state._replace(potential_energy=value, z_grad=gradient)

            state = lax.cond(state.i == 0, found, lambda state: state, state)
            point = ParamInfo(point, state.potential_energy, state.z_grad)
        kernel.init(state.rng_key, self.num_warmup, point, (), {})  # binds the kernel's closures

        def step(_: Any, state: Any) -> Any:
            return kernel.sample(state, (), {})

        def draw(i: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            state, record = carry
            state = lax.fori_loop(0, thinning, step, state)
            new = _record(state, kernel.sample_field)
            return state, jax.tree.map(lambda old, value: old.at[i].set(value), record, new)

        shapes = jax.eval_shape(lambda state: _record(state, kernel.sample_field), state)
        record = jax.tree.map(lambda s: jnp.zeros((self.chunk, *s.shape), s.dtype), shapes)
        return lax.fori_loop(0, count, draw, (state, record))

    @property
    def _is_hamiltonian(self) -> bool:
        return issubclass(self.kernel, HMC)

    def _build(self, energy: Callable, options: Any) -> Any:
        made: Any = self.kernel
        return made(potential_fn=energy, **as_arguments(options))


def axes(state: Any) -> Any:
    """Return the axes by which a state is mapped over chains: clocks that agree are not mapped.

    So the end of a warm-up window stays a branch that is taken once, not a mask at every step.
    """
    mapped = jax.tree.map(lambda _: 0, state)
    if not {"i", "adapt_state"} <= set(getattr(state, "_fields", ())):
        return mapped
    if "window_idx" not in getattr(state.adapt_state, "_fields", ()):
        return mapped._replace(i=None)
    return mapped._replace(i=None, adapt_state=mapped.adapt_state._replace(window_idx=None))


def statistics(kernel: type[MCMCKernel], record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return a record's statistics under ArviZ's names."""
    found = {name: np.asarray(value) for name, value in record.items() if name != "z"}
    stats = {new: found[old] for old, new in _STATISTICS.items() if old in found}
    if "lp" in stats:
        stats["lp"] = -stats["lp"]
    if "step_size" in found:
        stats["step_size"] = found["step_size"]
    if issubclass(kernel, NUTS):
        stats["tree_depth"] = np.frexp(stats["n_steps"])[1].astype(np.int64)  # floor(log2) + 1
    return stats


def _record(state: Any, sample_field: str) -> dict[str, Array]:
    """Return what is kept of a state: the position as one vector, and the statistics."""
    fields = state._asdict()
    record = {"z": ravel_pytree(fields[sample_field])[0]}
    record |= {name: fields[name] for name in _STATISTICS if name in fields}
    adapted = getattr(fields.get("adapt_state"), "step_size", None)
    return record if adapted is None else {**record, "step_size": adapted}


def _flatten(
    potential: Potential, z: dict[str, Array], options: Any
) -> tuple[Any, Callable[[Any], Array]]:
    """Return a point as one vector, and the energy over it; by site where the options name sites.

    One vector makes the kernel's own bookkeeping a third as long.
    """
    values = as_arguments(options)
    if any(isinstance(values.get(n), list | dict) for n in ("dense_mass", "inverse_mass_matrix")):
        return z, potential.energy
    flat, unravel = ravel_pytree(z)
    return flat, lambda point: potential.energy(unravel(point))


def _is_ensemble(kernel: Any) -> bool:
    from numpyro.infer.ensemble import EnsembleSampler

    return issubclass(kernel, EnsembleSampler)
