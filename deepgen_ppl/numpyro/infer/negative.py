"""Chains of the negative phase: how each kind of unnormalised density is moved and weighed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jaxtyping import Float
from numpyro.distributions import biject_to

from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.kernels import hmc
from deepgen_ppl.numpyro.kernels.adaptation import Controls
from deepgen_ppl.numpyro.kernels.estimates import van_der_corput

_RATE = 0.1
_TRAJECTORY = 1.5
_FIRST_STEP = 0.1

Values = Mapping[str, Any]


class Moved(NamedTuple):
    """What a move of all chains leaves.

    Attributes:
        state: state of the chains.
        tuning: what the next moves are steered by, as the logarithm of their step size.
        acceptance: mean acceptance of each chain.
        discrepancy: how far blocks were from being independent, 0 without blocks.
    """

    state: Any
    tuning: Any
    acceptance: Float[Array, " chain"]
    discrepancy: Float[Array, ""]


class Sampler(Protocol):
    """Chains on the visible values of an unnormalised density, and its hidden ones.

    A state is a pytree whose leading axis is the chain. `params` are constrained parameters by
    name; `rows` are the data rows that chains stand for, whose covariates they see.
    """

    @property
    def tuning(self) -> Any:
        """What the first moves are steered by, as the logarithm of their step size."""
        ...

    def start(self, key: Array, params: Values, inputs: Inputs, rows: Array, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base."""
        ...

    def move(
        self, key: Array, params: Values, inputs: Inputs, rows: Array, state: Any, tuning: Any,
        num_steps: int,
    ) -> Moved:  # fmt: skip
        """Move all chains by some steps."""
        ...

    def log_prob(
        self, params: Values, inputs: Inputs, rows: Array, state: Any
    ) -> Float[Array, " chain"]:
        """Return the unnormalised log density of each chain."""
        ...

    @property
    def is_continuous(self) -> bool:
        """Whether chains have continuous values, that may run away."""
        ...

    def place(self, state: Any) -> Float[Array, "chain D"]:
        """Return the continuous values by which chains are seen to run away."""
        ...

    def values(self, params: Values, inputs: Inputs, rows: Array, state: Any) -> dict[str, Array]:
        """Return the value of each site."""
        ...


class OwnChains:
    """The chain that a ready energy brings along.

    Args:
        energy: the ready energy.
        name: the name that its program registers it by.
        site: its visible site.
    """

    is_continuous = False

    def __init__(self, energy: Any, name: str = "energy", site: str = "x") -> None:
        self.static = eqx.partition(energy, eqx.is_inexact_array)[1]
        self.key, self.site = f"{name}$params", site
        self.counts_visible = energy.counts_visible
        self.tuning = first_step(None)

    def module(self, params: Values) -> Any:
        """Return the energy with parameters."""
        return eqx.combine(params[self.key], self.static)

    def start(self, key: Array, params: Values, inputs: Inputs, rows: Array, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base rate."""
        energy = self.module(params)
        if not at_data:
            return energy.init_chains(key, rows.shape[0])
        return energy.chains_at(key, inputs.gather(rows).data[0])

    def move(
        self, key: Array, params: Values, inputs: Inputs, rows: Array, state: Any, tuning: Any,
        num_steps: int,
    ) -> Moved:  # fmt: skip
        """Run the energy's own sweeps."""
        state = self.module(params).step_chains(key, state, num_steps)
        return Moved(state, tuning, jnp.ones(rows.shape[0]), jnp.zeros(()))

    def log_prob(
        self, params: Values, inputs: Inputs, rows: Array, state: Any
    ) -> Float[Array, " chain"]:
        """Return the log density by which each chain counts, as the energy has it."""
        return self.module(params).chain_log_prob(lax.stop_gradient(state))

    def data_log_prob(
        self, params: Values, inputs: Inputs, rows: Array | None
    ) -> Float[Array, " B"]:
        """Return the unnormalised log density of data rows, of all without a number of theirs."""
        call = inputs if rows is None else inputs.gather(rows)
        return self.module(params).training_log_prob(call.data[0])

    def place(self, state: Any) -> Float[Array, "chain D"]:
        """Return nothing: these chains live where their own moves keep them."""
        return jnp.zeros((jax.tree.leaves(state)[0].shape[0], 0))

    def values(self, params: Values, inputs: Inputs, rows: Array, state: Any) -> dict[str, Array]:
        """Return the visible values."""
        return {self.site: self.module(params).visible(state)}


class GradientChains:
    """Chains of a continuous ready energy, moved by a kernel that follows its gradient.

    They live where `biject_to` of the base's support maps to.

    Args:
        energy: the ready energy.
        kernel: options of the kernel, as `MALA()`.
        name: the name that its program registers it by.
        site: its visible site.
    """

    is_continuous = True

    def __init__(self, energy: Any, kernel: Any, name: str = "energy", site: str = "x") -> None:
        self.static = eqx.partition(energy, eqx.is_inexact_array)[1]
        self.key, self.site, self.kernel = f"{name}$params", site, kernel
        self.event_ndim = len(energy.event_shape)
        self.tuning = first_step(kernel)

    def module(self, params: Values) -> Any:
        """Return the energy with parameters."""
        return eqx.combine(params[self.key], self.static)

    def start(self, key: Array, params: Values, inputs: Inputs, rows: Array, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base."""
        base = self.module(params).base()
        x = base.sample(key, (rows.shape[0],)) if not at_data else inputs.gather(rows).data[0]
        return biject_to(base.support).inv(jnp.asarray(x, jnp.result_type(float, x)))

    def move(
        self, key: Array, params: Values, inputs: Inputs, rows: Array, state: Any, tuning: Any,
        num_steps: int,
    ) -> Moved:  # fmt: skip
        """Move all chains by some steps."""
        energy, shape = self.module(params), state.shape[1:]

        def potential(z: Array) -> Array:
            return -self._log_prob(energy, z.reshape(-1, *shape))

        def both(z: Array) -> tuple[Array, Array]:
            values, back = jax.vjp(potential, z)
            return values, back(jnp.ones_like(values))[0]

        flat = state.reshape(state.shape[0], -1)
        z, tuning, rate = climb(key, self.kernel, flat, both, tuning, num_steps)
        return Moved(z.reshape(state.shape), tuning, rate, jnp.zeros(()))

    def log_prob(
        self, params: Values, inputs: Inputs, rows: Array, state: Any
    ) -> Float[Array, " chain"]:
        """Return the unnormalised log density of each chain, where it lives."""
        return self._log_prob(self.module(params), state)

    def place(self, state: Any) -> Float[Array, "chain D"]:
        """Return the positions."""
        return state.reshape(state.shape[0], -1)

    def values(self, params: Values, inputs: Inputs, rows: Array, state: Any) -> dict[str, Array]:
        """Return the visible values."""
        return {self.site: biject_to(self.module(params).base().support)(state)}

    def _log_prob(self, energy: Any, z: Array) -> Array:
        transform = biject_to(energy.base().support)
        x = transform(z)
        log_det = transform.log_abs_det_jacobian(z, x)
        axes = tuple(range(1, jnp.ndim(log_det)))
        return energy.unnormalised_log_prob(x) + jnp.sum(log_det, axis=axes)


def climb(
    key: Array,
    kernel: Any,
    z: Float[Array, "chain D"],
    potential: Callable[[Array], tuple[Array, Array]],
    log_step: Float[Array, "*kind"],
    num_steps: int,
) -> tuple[Array, Array, Array]:
    """Move continuous chains by a kernel, its step size following the acceptance.

    Args:
        key: random key.
        kernel: options of `MALA`, `Langevin`, `ChEES` or `RWM`.
        z: positions.
        potential: potential energy and gradient, over the batch.
        log_step: logarithm of the step size; one of each kind where kinds of chains take turns.
        num_steps: number of steps.

    Returns:
        Positions, the logarithm of the step size to go on with, and the acceptance of each chain.
    """
    root: Any = None
    move, target = kernel.bind(), kernel.target_accept_prob
    lengths = getattr(kernel, "trajectory_lengths", (_TRAJECTORY,))
    length = jnp.asarray(lengths[len(lengths) // 2], z.dtype)
    kinds = log_step.shape

    def one(number: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        state, log_step, total = carry
        size = jnp.exp(log_step)
        if kinds:
            size = jnp.tile(size, len(z) // size.size)
        steer = Controls(size, length, van_der_corput(number), root)
        state, info = move(random.fold_in(key, number), state, potential, steer)
        rate = jnp.nan_to_num(info.acceptance)
        gain = rate.reshape(-1, *kinds).mean(0) - target
        return state, log_step + _RATE * gain, total + rate

    begun = (hmc.init(z, potential), log_step.astype(z.dtype), jnp.zeros(len(z), z.dtype))
    state, log_step, total = lax.fori_loop(0, num_steps, one, begun)
    return state.position, log_step, total / num_steps


def first_step(kernel: Any) -> float:
    """Return the logarithm of the step size that a kernel begins with."""
    return math.log(getattr(kernel, "step_size", _FIRST_STEP))
