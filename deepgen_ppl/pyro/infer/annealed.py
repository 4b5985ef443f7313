"""Annealing of ready energies along their own chains: from independent units to the energy."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.utils._pytree import tree_map
from tqdm.auto import tqdm

from deepgen_ppl import energies
from deepgen_ppl.annealing import systematic
from deepgen_ppl.harmonium import Sides
from deepgen_ppl.pyro.kernels import tempering
from deepgen_ppl.pyro.kernels.tempering import Spacing
from deepgen_ppl.pyro.programs.energy import units as layers

_CHUNK = 500  # temperatures between two looks at the bar


class EnergyPath(ABC):
    """Densities between independent units, of known log Z, and an energy."""

    @abstractmethod
    def log_start(self) -> Tensor:
        """Return the log Z of the start, at temperature 0."""

    @abstractmethod
    def start(self, generator: Generator, num_chains: int) -> Any:
        """Return exact draws of the start."""

    @abstractmethod
    def see(self, state: Any) -> Any:
        """Return the state with what difference and move both need."""

    @abstractmethod
    def difference(self, seen: Any, before: float, after: float) -> Float[Tensor, " chain"]:
        """Return by how much the log density of a state changes from one temperature to another."""

    @abstractmethod
    def move(self, generator: Generator, seen: Any, beta: float) -> Any:
        """Return the state after a reversible transition at a temperature."""


class SidesPath(EnergyPath):
    r"""The path of a harmonium over its first side, the second side summed out.

    \[ \log p^*_\beta(f) = \log g(f) + ((1 - \beta) a_0 + \beta a) \cdot f
       + A(\beta (b + W^\top f)) \]

    Args:
        sides: the energy.
        base: natural parameters of the first side's units at the start.

    References:
        Salakhutdinov, Murray: On the quantitative analysis of deep belief networks. ICML 2008.
        https://doi.org/10.1145/1390156.1390266
    """

    def __init__(self, sides: Sides, base: Any) -> None:
        self.first, self.second = sides.first, sides.second
        arrays = (sides.weight, sides.first_bias, sides.second_bias, sides.constant)
        held = [torch.as_tensor(array).detach() for array in arrays]
        self.weight, self.first_bias, self.second_bias, self.constant = held
        self.base = torch.as_tensor(base, dtype=self.weight.dtype, device=self.weight.device)

    def log_start(self) -> Tensor:
        """Return the log Z of the start, at temperature 0."""
        second = layers.log_partition(self.second, torch.zeros_like(self.second_bias))
        return layers.log_partition(self.first, self.base) + second + self.constant

    def start(self, generator: Generator, num_chains: int) -> Any:
        """Return exact draws of the start."""
        return layers.draw(generator, self.first, self.base.expand(num_chains, *self.base.shape))

    def see(self, state: Any) -> Any:
        """Return the state with what difference and move both need."""
        return state, torch.addmm(self.second_bias, state, self.weight)

    def difference(self, seen: Any, before: float, after: float) -> Float[Tensor, " chain"]:
        """Return by how much the log density of a state changes from one temperature to another."""
        f, field = seen
        second = layers.log_partition(self.second, after * field)
        second = second - layers.log_partition(self.second, before * field)
        return (after - before) * (f @ (self.first_bias - self.base)) + second

    def move(self, generator: Generator, seen: Any, beta: float) -> Any:
        """Return the state after a reversible transition at a temperature."""
        g = layers.draw(generator, self.second, beta * seen[1])
        alone = torch.lerp(self.base, self.first_bias, beta)
        eta = torch.addmm(alone, g, self.weight.T, alpha=beta)
        return layers.draw(generator, self.first, eta)


def forwards(
    path: EnergyPath, betas: np.ndarray, num_chains: int, generator: Generator, progress: bool
) -> tuple[Float[np.ndarray, " K"], Any]:
    r"""Climb from the start to the energy.

    \[ \log w = \log Z_0 + \sum_t \log p^*_{\beta_t}(f_{t-1}) - \log p^*_{\beta_{t-1}}(f_{t-1}) \]

    Args:
        path: the densities.
        betas: temperatures from 0 to 1.
        num_chains: number K of chains.
        generator: source of the random numbers.
        progress: whether to show a bar.

    Returns:
        The log weights, whose mean weight is Z, and the chains' last states.
    """
    state = path.start(generator, num_chains)
    total, state = _climb(path, betas, state, generator, progress)
    return total + float(path.log_start()), state


def backwards(
    path: EnergyPath, betas: np.ndarray, state: Any, generator: Generator, progress: bool
) -> Float[np.ndarray, " K"]:
    """Climb down from draws of the energy to the start.

    Args:
        path: the densities.
        betas: temperatures from 0 to 1.
        state: draws of the energy.
        generator: source of the random numbers.
        progress: whether to show a bar.

    Returns:
        Log weights, the mean of whose reciprocals is 1/Z if the draws are exact.
    """
    total, _ = _climb(path, betas[::-1], state, generator, progress)
    return float(path.log_start()) - total


def settled(path: EnergyPath, state: Any, num_steps: int, generator: Generator) -> Any:
    """Return the state after transitions of the energy.

    Args:
        path: the densities.
        state: the chains.
        num_steps: number of transitions.
        generator: source of the random numbers.
    """
    for _ in range(num_steps):
        state = path.move(generator, path.see(state), 1.0)
    return state


def resampled(state: Any, log_weights: np.ndarray, seed: int) -> Any:
    """Return chains drawn in proportion to their weights.

    Args:
        state: the chains.
        log_weights: their log weights.
        seed: seed of the draws.
    """
    weights = np.exp(log_weights - log_weights.max())
    chosen = systematic(weights / weights.sum(), np.random.default_rng(seed).uniform(size=()))
    return state[torch.as_tensor(chosen, device=state.device)]


def swapping(
    path: EnergyPath,
    state: Sequence[Any],
    spacing: Spacing,
    generator: Any,
    learning: bool = True,
) -> tuple[list[Any], Spacing]:
    """Let chains at neighbouring temperatures swap, and move all of them once.

    Where the path starts a move is an exact draw, so what comes up the ladder may be of any mode.

    Args:
        path: the densities.
        state: chains at each temperature.
        spacing: the temperatures.
        generator: source of the random numbers, torch's own when None.
        learning: whether they move.
    """
    betas = spacing.betas.tolist()
    seen = [path.see(chains) for chains in state]
    rates = [
        path.difference(seen[t], betas[t], betas[t + 1])
        + path.difference(seen[t + 1], betas[t + 1], betas[t])
        for t in range(len(betas) - 1)
    ]
    turn = tempering.exchange(int(spacing.number), torch.stack(rates), generator)
    order, chain = turn.order, torch.arange(turn.order.shape[1], device=turn.order.device)
    joined = tree_map(lambda *leaves: torch.stack(leaves)[order, chain], *seen)
    moved = []
    for t, beta in enumerate(betas):
        here = tree_map(lambda leaf, t=t: leaf[t], joined)
        moved.append(path.move(generator, here, beta))
    return moved, spacing.after(turn, learning)


def tempered(
    path: EnergyPath, num_chains: int, num_steps: int, num_temperatures: int, generator: Generator
) -> Any:
    """Return chains at the energy that swapped with others down to the start.

    Temperatures move in the first half of the steps.

    Args:
        path: the densities.
        num_chains: number of chains at each temperature.
        num_steps: number of steps.
        num_temperatures: number of temperatures.
        generator: source of the random numbers.
    """
    state = [path.start(generator, num_chains) for _ in range(num_temperatures)]
    spacing = Spacing.first(num_temperatures)
    with torch.no_grad():
        for number in range(num_steps):
            state, spacing = swapping(path, state, spacing, generator, 2 * number < num_steps)
    told = energies.seldom_swaps(1.0 - float(spacing.rejections.max()))
    if told:
        warnings.warn(told, UserWarning, stacklevel=4)
    return state[-1]


def own_rates(path: SidesPath, num_chains: int, num_steps: int, generator: Generator) -> np.ndarray:
    """Return natural parameters of units with the means of the energy's own chains.

    Args:
        path: the energy; its chains begin at its biases.
        num_chains: number of chains.
        num_steps: number of sweeps.
        generator: source of the random numbers.
    """
    state = settled(path, path.start(generator, num_chains), num_steps, generator)
    return energies.rates(path.first, state.cpu().numpy().mean(0), num_chains)


def _climb(
    path: EnergyPath, betas: np.ndarray, state: Any, generator: Generator, progress: bool
) -> tuple[np.ndarray, Any]:
    total: Any = 0.0
    temperatures = betas.tolist()
    with tqdm(total=len(betas) - 1, desc="annealing", disable=not progress) as bar:
        for number in range(len(betas) - 1):
            before, after = temperatures[number], temperatures[number + 1]
            seen = path.see(state)
            total = total + path.difference(seen, before, after).double()
            state = path.move(generator, seen, after)
            if (number + 1) % _CHUNK == 0:
                bar.update(_CHUNK)
    return total.cpu().numpy(), state
