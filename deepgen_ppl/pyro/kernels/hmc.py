"""Hamiltonian Monte Carlo on a batch of chains, preconditioned by the root of a covariance."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ValueAndGrad = Callable[[Tensor], tuple[Tensor, Tensor]]

MAX_ENERGY_ERROR = 1000.0


class HMCState(NamedTuple):
    """What the next step needs.

    Attributes:
        position: Point of each chain on the unconstrained space.
        potential: Potential energy there.
        gradient: Gradient of the potential energy there.
    """

    position: Float[Tensor, "*batch D"]
    potential: Float[Tensor, "*batch"]
    gradient: Float[Tensor, "*batch D"]


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

    acceptance: Float[Tensor, "*batch"]
    accepted: Bool[Tensor, "*batch"]
    energy: Float[Tensor, "*batch"]
    diverging: Bool[Tensor, "*batch"]
    num_steps: int
    proposal: Float[Tensor, "*batch D"]
    velocity: Float[Tensor, "*batch D"]


def init(position: Float[Tensor, "*batch D"], value_and_grad: ValueAndGrad) -> HMCState:
    """Return the state of chains at given positions.

    Args:
        position: A point of each chain.
        value_and_grad: Potential energy U and its gradient, over the batch.
    """
    return HMCState(position, *value_and_grad(position))


def step(
    generator: torch.Generator,
    state: HMCState,
    value_and_grad: ValueAndGrad,
    *,
    step_size: float | Tensor,
    num_steps: int = 1,
    root: Float[Tensor, " D"] | Float[Tensor, "D D"] | None = None,
) -> tuple[HMCState, HMCInfo]:
    r"""Move every chain along one Hamiltonian trajectory and accept or reject its end.

    With \(L L^T\) an estimate of the covariance and \(u \sim N(0, I)\), leapfrog steps follow

    \[ du = -L^T \nabla U(z) \, dt, \qquad dz = L u \, dt, \qquad H = U(z) + |u|^2 / 2, \]

    which is the mass matrix \((L L^T)^{-1}\) with the kinetic energy computed where rounding cannot
    make it negative. The end is accepted with probability \(\min(1, e^{H - H'})\); an energy error
    above 1000, or one that is not finite, is a divergence and rejected.

    Args:
        generator: Source of the random numbers.
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
        >>> def potential(z):
        ...     return (z**2).sum(-1) / 2, z
        >>> generator = torch.Generator().manual_seed(0)
        >>> state = init(torch.zeros(64, 2), potential)
        >>> state, info = step(generator, state, potential, step_size=0.5, num_steps=3)
        >>> state.position.shape, bool(info.acceptance.mean() > 0.9)
        (torch.Size([64, 2]), True)
    """
    position, potential = state.position, state.potential
    like: dict = {"generator": generator, "dtype": position.dtype, "device": position.device}
    velocity = torch.randn(position.shape, **like)
    options: dict = {"step_size": step_size, "num_steps": num_steps, "root": root}
    proposal, info = trajectory(velocity, state, value_and_grad, **options)
    accepted = torch.rand(potential.shape, **like) < info.acceptance
    return choose(accepted, proposal, state), info._replace(accepted=accepted)


def trajectory(
    velocity: Float[Tensor, "*batch D"],
    state: HMCState,
    value_and_grad: ValueAndGrad,
    *,
    step_size: float | Tensor,
    num_steps: int = 1,
    root: Float[Tensor, " D"] | Float[Tensor, "D D"] | None = None,
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
    kick, move = moves(step_size, root, state.position)
    energy = state.potential + kinetic(velocity)
    position, potential, gradient = state
    velocity = kick(velocity, gradient, 0.5)
    for number in range(1, num_steps + 1):
        position = move(position, velocity)
        potential, gradient = value_and_grad(position)
        velocity = kick(velocity, gradient, 1.0 if number < num_steps else 0.5)
    error = potential + kinetic(velocity) - energy
    diverging = ~(error <= MAX_ENERGY_ERROR)
    acceptance = torch.where(diverging, 0.0, torch.exp((-error).clamp(max=0.0)))
    info = HMCInfo(acceptance, ~diverging, energy, diverging, num_steps, position, velocity)
    return HMCState(position, potential, gradient), info


def kinetic(velocity: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
    """Return |u|^2 / 2 of each chain."""
    return 0.5 * velocity.square().sum(-1)


def push(root: Tensor | None, velocity: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
    """Return L u: standard normal coordinates on the space of positions."""
    if root is None:
        return velocity
    return root * velocity if root.dim() == 1 else velocity @ root.T


def pull(root: Tensor | None, gradient: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
    """Return L^T g: a gradient in the standard normal coordinates."""
    if root is None:
        return gradient
    return root * gradient if root.dim() == 1 else gradient @ root


def choose(accepted: Bool[Tensor, "*batch"], proposal: HMCState, state: HMCState) -> HMCState:
    """Return the proposal of the chains that accept it, the state of the others."""
    there = accepted.unsqueeze(-1)
    return HMCState(
        torch.where(there, proposal.position, state.position),
        torch.where(accepted, proposal.potential, state.potential),
        torch.where(there, proposal.gradient, state.gradient),
    )


def moves(
    step_size: float | Tensor, root: Tensor | None, like: Tensor
) -> tuple[Callable[[Tensor, Tensor, float], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """Return the kick of the velocity and the move of the position, in one operation where it can.

    Args:
        step_size: As of `step`.
        root: As of `step`.
        like: A batch of positions.

    Returns:
        `kick(velocity, gradient, part)` of a part of a step, and `move(position, velocity)`.
    """
    size = torch.as_tensor(step_size, dtype=like.dtype, device=like.device)
    if root is not None and root.dim() == 2 and size.dim() == 0 and like.dim() == 2:
        scaled = size * root
        return (
            lambda u, gradient, part: torch.addmm(u, gradient, scaled, alpha=-part),
            lambda z, u: torch.addmm(z, u, scaled.T),
        )
    each = size.unsqueeze(-1) if size.dim() else size
    if root is not None and root.dim() == 2:
        return (
            lambda u, gradient, part: torch.addcmul(u, each, gradient @ root, value=-part),
            lambda z, u: torch.addcmul(z, each, u @ root.T),
        )
    scale = each if root is None else each * root
    return (
        lambda u, gradient, part: torch.addcmul(u, scale, gradient, value=-part),
        lambda z, u: torch.addcmul(z, scale, u),
    )
