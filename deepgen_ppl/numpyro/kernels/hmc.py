"""Hamiltonian Monte Carlo on a batch of chains, preconditioned by the root of a covariance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax, random
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

ValueAndGrad = Callable[[Float[Array, "*batch D"]], tuple[Array, Array]]

MAX_ENERGY_ERROR = 1000.0


class HMCState(NamedTuple):
    """What the next step needs.

    Attributes:
        position: Point of each chain on the unconstrained space.
        potential: Potential energy there.
        gradient: Gradient of the potential energy there.
    """

    position: Float[Array, "*batch D"]
    potential: Float[Array, "*batch"]
    gradient: Float[Array, "*batch D"]


class HMCInfo(NamedTuple):
    """What diagnostics and adaptation need.

    Attributes:
        acceptance: Probability of accepting the proposal; 0 where its energy is not finite.
        accepted: Whether it was accepted.
        energy: Potential plus kinetic energy at the start of the trajectory.
        diverging: Whether the energy error passed 1000 or was not finite.
        num_steps: Leapfrog steps taken, which is the number of gradients.
        proposal: End of the trajectory, whether accepted or not.
        velocity: Momentum there, in the coordinates where it is standard normal.
    """

    acceptance: Float[Array, "*batch"]
    accepted: Bool[Array, "*batch"]
    energy: Float[Array, "*batch"]
    diverging: Bool[Array, "*batch"]
    num_steps: Int[Array, ""]
    proposal: Float[Array, "*batch D"]
    velocity: Float[Array, "*batch D"]


def init(position: Float[Array, "*batch D"], value_and_grad: ValueAndGrad) -> HMCState:
    """Return the state of chains at given positions.

    Args:
        position: A point of each chain.
        value_and_grad: Potential energy U and its gradient, over the batch.
    """
    return HMCState(position, *value_and_grad(position))


def unknown(position: Float[Array, "*batch D"]) -> HMCState:
    """Return the state of chains whose energies are not computed yet.

    A step of size 0 computes them and stays where it is, since any finite energy is accepted
    against an infinite one. A chain without a finite energy keeps the infinite one. So a program
    that is compiled for its steps needs no second copy of the gradient's code for its start.

    Args:
        position: A point of each chain.
    """
    infinite = jnp.full(position.shape[:-1], jnp.inf, position.dtype)
    return HMCState(position, infinite, jnp.zeros_like(position))


def step(
    key: Array,
    state: HMCState,
    value_and_grad: ValueAndGrad,
    *,
    step_size: ArrayLike,
    num_steps: ArrayLike = 1,
    root: Float[Array, " D"] | Float[Array, "D D"] | None = None,
) -> tuple[HMCState, HMCInfo]:
    r"""Move every chain along one Hamiltonian trajectory and accept or reject its end.

    With \(L L^T\) an estimate of the covariance and \(u \sim N(0, I)\), leapfrog steps follow

    \[ du = -L^T \nabla U(z) \, dt, \qquad dz = L u \, dt, \qquad H = U(z) + |u|^2 / 2, \]

    which is the mass matrix \((L L^T)^{-1}\) with the kinetic energy computed where rounding cannot
    make it negative. The end is accepted with probability \(\min(1, e^{H - H'})\); an energy error
    above 1000, or one that is not finite, is a divergence and rejected.

    Args:
        key: Random key.
        state: State of all chains.
        value_and_grad: Potential energy and its gradient, over the batch.
        step_size: Size of a leapfrog step, a number or one for each chain `(*batch,)`.
        num_steps: Number of leapfrog steps, the same for all chains.
        root: L, a lower triangular matrix or the diagonal of one; the identity when None.

    Returns:
        The new state, and what is known of the step.

    Cost:
        `num_steps` gradients of the whole batch.

    References:
        Neal: MCMC using Hamiltonian dynamics. Handbook of Markov Chain Monte Carlo, 2011.
        https://arxiv.org/abs/1206.1901

    Example:
        >>> import jax
        >>> def potential(z):
        ...     return (z**2).sum(-1) / 2, z
        >>> state = init(jnp.zeros((64, 2)), potential)
        >>> state, info = step(random.key(0), state, potential, step_size=0.5, num_steps=3)
        >>> state.position.shape, bool(info.acceptance.mean() > 0.9)
        ((64, 2), True)
    """
    momentum_key, accept_key = random.split(key)
    velocity = random.normal(momentum_key, state.position.shape, state.position.dtype)
    options = {"step_size": step_size, "num_steps": num_steps, "root": root}
    proposal, info = trajectory(velocity, state, value_and_grad, **options)
    uniform = random.uniform(accept_key, info.acceptance.shape, info.acceptance.dtype)
    accepted = uniform < info.acceptance
    return choose(accepted, proposal, state), info._replace(accepted=accepted)


def trajectory(
    velocity: Float[Array, "*batch D"],
    state: HMCState,
    value_and_grad: ValueAndGrad,
    *,
    step_size: ArrayLike,
    num_steps: ArrayLike = 1,
    root: Float[Array, " D"] | Float[Array, "D D"] | None = None,
) -> tuple[HMCState, HMCInfo]:
    """Follow the trajectories that `step` proposes from given momenta, accepting none yet.

    Args:
        velocity: Momentum of each chain, standard normal.
        state: State of all chains.
        value_and_grad: Potential energy and its gradient, over the batch.
        step_size: Size of a leapfrog step, a number or one for each chain `(*batch,)`.
        num_steps: Number of leapfrog steps, the same for all chains.
        root: L, a lower triangular matrix or the diagonal of one; the identity when None.

    Returns:
        The states at the ends, and what is known of the trajectories.
    """
    size = jnp.asarray(step_size, state.position.dtype)[..., None]
    energy = state.potential + kinetic(velocity)

    def leapfrog(_: Array, at: tuple[Array, ...]) -> tuple[Array, ...]:
        position, velocity, _, _, force = at
        velocity = velocity - 0.5 * size * force
        position = position + size * push(root, velocity)
        potential, gradient = value_and_grad(position)
        force = pull(root, gradient)
        return position, velocity - 0.5 * size * force, potential, gradient, force

    start = (state.position, velocity, state.potential, state.gradient, pull(root, state.gradient))
    position, velocity, potential, gradient, _ = lax.fori_loop(0, num_steps, leapfrog, start)
    error = potential + kinetic(velocity) - energy
    diverging = ~(error <= MAX_ENERGY_ERROR)
    acceptance = jnp.where(diverging, 0.0, jnp.exp(jnp.minimum(-error, 0.0)))
    info = HMCInfo(
        acceptance, ~diverging, energy, diverging, jnp.asarray(num_steps), position, velocity
    )
    return HMCState(position, potential, gradient), info


def kinetic(velocity: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
    """Return |u|^2 / 2 of each chain."""
    return 0.5 * jnp.sum(velocity**2, axis=-1)


def push(root: Array | None, velocity: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Return L u: standard normal coordinates on the space of positions."""
    if root is None:
        return velocity
    return root * velocity if root.ndim == 1 else velocity @ root.T


def pull(root: Array | None, gradient: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Return L^T g: a gradient in the standard normal coordinates."""
    if root is None:
        return gradient
    return root * gradient if root.ndim == 1 else gradient @ root


def choose(accepted: Bool[Array, "*batch"], proposal: HMCState, state: HMCState) -> HMCState:
    """Return the proposal of the chains that accept it, the state of the others."""
    there = accepted[..., None]
    return HMCState(
        jnp.where(there, proposal.position, state.position),
        jnp.where(accepted, proposal.potential, state.potential),
        jnp.where(there, proposal.gradient, state.gradient),
    )
