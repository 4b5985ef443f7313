"""Annealing of ready energies along their own chains: from independent units to the energy."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float
from tqdm.auto import tqdm

from deepgen_ppl import energies
from deepgen_ppl.annealing import systematic
from deepgen_ppl.halves import switch
from deepgen_ppl.harmonium import Sides
from deepgen_ppl.numpyro.kernels import tempering
from deepgen_ppl.numpyro.kernels.tempering import Spacing
from deepgen_ppl.numpyro.programs.energy import halves
from deepgen_ppl.numpyro.programs.energy import units as layers

_CHUNK = 500  # temperatures of one compiled call
_PAIRS = slice(None, -1), slice(1, None)


class EnergyPath(eqx.Module):
    """Densities between independent units, of known log Z, and an energy."""

    def prepared(self, num_chains: int) -> EnergyPath:
        """Return the same path, ready for many transitions of some chains.

        Args:
            num_chains: number of chains.
        """
        return self

    @abstractmethod
    def log_start(self) -> Array:
        """Return the log Z of the start, at temperature 0."""

    @abstractmethod
    def start(self, key: Array, num_chains: int) -> Any:
        """Return exact draws of the start."""

    @abstractmethod
    def see(self, state: Any) -> Any:
        """Return the state with what difference and move both need."""

    @abstractmethod
    def difference(self, seen: Any, before: Array, after: Array) -> Float[Array, " chain"]:
        """Return by how much the log density of a state changes from one temperature to another."""

    @abstractmethod
    def move(self, key: Array, seen: Any, beta: Array) -> Any:
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

    above: Any
    below: Any
    first_bias: Array
    second_bias: Array
    constant: Array
    base: Array
    first: tuple = eqx.field(static=True)
    second: tuple = eqx.field(static=True)
    switch: str = eqx.field(static=True)

    def __init__(self, sides: Sides, base: Any) -> None:
        self.first, self.second, self.switch = sides.first, sides.second, switch()
        self.above = self.below = jnp.asarray(sides.weight)
        self.first_bias = jnp.asarray(sides.first_bias)
        self.second_bias, self.constant = (
            jnp.asarray(sides.second_bias),
            jnp.asarray(sides.constant),
        )
        self.base = jnp.asarray(base, self.above.dtype)

    def prepared(self, num_chains: int) -> SidesPath:
        """Return the same path, ready for many transitions of some chains."""
        first, second = layers.is_binary(self.first), layers.is_binary(self.second)
        above = halves.prepared(self.above, num_chains, first)
        below = halves.prepared(self.below, num_chains, second)
        return eqx.tree_at(lambda path: (path.above, path.below), self, (above, below))

    def log_start(self) -> Array:
        """Return the log Z of the start, at temperature 0."""
        second = layers.log_partition(self.second, jnp.zeros_like(self.second_bias))
        return layers.log_partition(self.first, self.base) + second + self.constant

    def start(self, key: Array, num_chains: int) -> Any:
        """Return exact draws of the start."""
        eta = jnp.broadcast_to(self.base, (num_chains, *self.base.shape))
        return layers.draw(key, self.first, eta)

    def see(self, state: Any) -> Any:
        """Return the state with what difference and move both need."""
        return state, halves.product(state, self.above) + self.second_bias

    def difference(self, seen: Any, before: Array, after: Array) -> Float[Array, " chain"]:
        """Return by how much the log density of a state changes from one temperature to another."""
        f, field = seen
        second = layers.log_partition(self.second, after * field)
        second = second - layers.log_partition(self.second, before * field)
        return (after - before) * (f @ (self.first_bias - self.base)) + second

    def move(self, key: Array, seen: Any, beta: Array) -> Any:
        """Return the state after a reversible transition at a temperature."""
        g = layers.draw(key, self.second, beta * seen[1], 0)
        field = halves.product_back(g, self.below) + self.first_bias
        return layers.draw(key, self.first, (1.0 - beta) * self.base + beta * field, 1)


def forwards(
    path: EnergyPath, betas: np.ndarray, num_chains: int, key: Array, progress: bool
) -> tuple[Float[np.ndarray, " K"], Any]:
    r"""Climb from the start to the energy.

    \[ \log w = \log Z_0 + \sum_t \log p^*_{\beta_t}(f_{t-1}) - \log p^*_{\beta_{t-1}}(f_{t-1}) \]

    Args:
        path: the densities.
        betas: temperatures from 0 to 1.
        num_chains: number K of chains.
        key: random key.
        progress: whether to show a bar.

    Returns:
        The log weights, whose mean weight is Z, and the chains' last states.
    """
    keys = random.split(key)
    state = _start(path, keys[0], num_chains)
    total, state = _climb(path, betas, state, keys[1], progress)
    return total + float(path.log_start()), state


def backwards(
    path: EnergyPath, betas: np.ndarray, state: Any, key: Array, progress: bool
) -> Float[np.ndarray, " K"]:
    """Climb down from draws of the energy to the start.

    Args:
        path: the densities.
        betas: temperatures from 0 to 1.
        state: draws of the energy.
        key: random key.
        progress: whether to show a bar.

    Returns:
        Log weights, the mean of whose reciprocals is 1/Z if the draws are exact.
    """
    total, _ = _climb(path, betas[::-1], state, key, progress)
    return float(path.log_start()) - total


def settled(path: EnergyPath, state: Any, num_steps: int, key: Array) -> Any:
    """Return the state after transitions of the energy.

    Args:
        path: the densities.
        state: the chains.
        num_steps: number of transitions.
        key: random key.
    """
    return _settle(path, state, jnp.asarray(num_steps), key)


def resampled(state: Any, log_weights: np.ndarray, seed: int) -> Any:
    """Return chains drawn in proportion to their weights.

    Args:
        state: the chains.
        log_weights: their log weights.
        seed: seed of the draws.
    """
    weights = np.exp(log_weights - log_weights.max())
    chosen = systematic(weights / weights.sum(), np.random.default_rng(seed).uniform(size=()))
    return jax.tree.map(lambda leaf: leaf[chosen], state)


def swapping(
    path: EnergyPath, state: Any, spacing: Spacing, key: Array, learning: Any = True
) -> tuple[Any, Spacing]:
    """Let chains at neighbouring temperatures swap, and move all of them once.

    Where the path starts a move is an exact draw, so what comes up the ladder may be of any mode.

    Args:
        path: the densities.
        state: chains at each temperature, (T, chain, ...).
        spacing: the temperatures.
        key: random key.
        learning: whether they move.
    """
    keys, betas = random.split(key), spacing.betas
    seen = jax.vmap(path.see)(state)
    lower, upper = (jax.tree.map(lambda leaf, own=own: leaf[own], seen) for own in _PAIRS)
    differences = jax.vmap(path.difference)
    rates = differences(lower, betas[:-1], betas[1:]) + differences(upper, betas[1:], betas[:-1])
    turn = tempering.exchange(keys[0], spacing.number, rates)
    chain = jnp.arange(turn.order.shape[1])
    seen = jax.tree.map(lambda leaf: leaf[turn.order, chain], seen)
    moved = jax.vmap(path.move)(random.split(keys[1], len(betas)), seen, betas)
    return moved, spacing.after(turn, learning)


def tempered(
    path: EnergyPath, num_chains: int, num_steps: int, num_temperatures: int, key: Array
) -> Any:
    """Return chains at the energy that swapped with others down to the start.

    Temperatures move in the first half of the steps.

    Args:
        path: the densities.
        num_chains: number of chains at each temperature.
        num_steps: number of steps.
        num_temperatures: number of temperatures.
        key: random key.
    """
    steps = jnp.asarray(num_steps)
    state, rate = _swap_on(path, num_chains, num_temperatures, steps, key)
    told = energies.seldom_swaps(float(rate))
    if told:
        warnings.warn(told, UserWarning, stacklevel=4)
    return state


def own_rates(path: SidesPath, num_chains: int, num_steps: int, key: Array) -> np.ndarray:
    """Return natural parameters of units with the means of the energy's own chains.

    Args:
        path: the energy; its chains begin at its biases.
        num_chains: number of chains.
        num_steps: number of sweeps.
        key: random key.
    """
    keys = random.split(key)
    state = settled(path, _start(path, keys[0], num_chains), num_steps, keys[1])
    return energies.rates(path.first, np.asarray(state).mean(0), num_chains)


def _climb(
    path: EnergyPath, betas: np.ndarray, state: Any, key: Array, progress: bool
) -> tuple[np.ndarray, Any]:
    before, after = betas[:-1], betas[1:]
    total: Any = 0.0
    size = min(_CHUNK, len(before))
    with tqdm(total=len(before), desc="annealing", disable=not progress) as bar:
        for start in range(0, len(before), size):
            chosen = np.minimum(np.arange(start, start + size), len(before) - 1)
            ours = np.where(np.arange(start, start + size) < len(before), before[chosen], after[-1])
            state, found = _steps(path, state, key, np.int32(start), ours, after[chosen])
            total = total + np.asarray(found, np.float64).sum(0)
            bar.update(min(size, len(before) - start))
    return total, state


@eqx.filter_jit
def _start(path: EnergyPath, key: Array, num_chains: int) -> Any:
    return path.start(key, num_chains)


@eqx.filter_jit
def _steps(
    path: EnergyPath, state: Any, key: Array, number: Any, before: Any, after: Any
) -> tuple[Any, Array]:
    keys = random.split(random.fold_in(key, number), len(before))
    path = path.prepared(len(jax.tree.leaves(state)[0]))

    def step(state: Any, move: Any) -> tuple[Any, Array]:
        key, low, high = move
        seen = path.see(state)
        return path.move(key, seen, high), path.difference(seen, low, high)

    dtype = jnp.result_type(float)
    return jax.lax.scan(step, state, (keys, before.astype(dtype), after.astype(dtype)))


@eqx.filter_jit
def _swap_on(
    path: EnergyPath, num_chains: int, num_temperatures: int, num_steps: Any, key: Array
) -> tuple[Any, Array]:
    path, keys = path.prepared(num_chains), random.split(key)
    begun = jax.vmap(lambda key: path.start(key, num_chains))
    state = begun(random.split(keys[0], num_temperatures))

    def step(number: Any, now: tuple[Any, Spacing]) -> tuple[Any, Spacing]:
        return swapping(path, *now, random.fold_in(keys[1], number), 2 * number < num_steps)

    now = (state, Spacing.first(num_temperatures))
    state, spacing = jax.lax.fori_loop(0, num_steps, step, now)
    return jax.tree.map(lambda leaf: leaf[-1], state), 1.0 - spacing.rejections.max()


@eqx.filter_jit
def _settle(path: EnergyPath, state: Any, num_steps: Any, key: Array) -> Any:
    one = jnp.ones(())
    path = path.prepared(len(jax.tree.leaves(state)[0]))

    def sweep(step: Any, state: Any) -> Any:
        return path.move(random.fold_in(key, step), path.see(state), one)

    return jax.lax.fori_loop(0, num_steps, sweep, state)
