"""Kernels of BlackJAX that keep their momentum: MEADS, and microcanonical Langevin (MCLMC)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float

from deepgen_ppl.checks import check_positive

__all__ = ["MCLMC", "MEADS"]

LogDensity = Callable[[Float[Array, " D"]], Float[Array, ""]]

_TUNING = 0.3  # share of the steps to come that BlackJAX takes to tune MCLMC


class Moved(NamedTuple):
    """What a step leaves for diagnostics, of each chain.

    Attributes:
        acceptance: Probability of acceptance; 1 where nothing is rejected.
        diverging: Whether the energy ran away.
        energy: Energy error of the step.
    """

    acceptance: Float[Array, " chain"]
    diverging: Float[Array, " chain"]
    energy: Float[Array, " chain"]


@dataclass(frozen=True)
class MEADS:
    """Generalised HMC whose step size and damping are learnt from folds of chains, by BlackJAX.

    One leapfrog step at a time, with a momentum that is only partly drawn anew.

    Args:
        num_folds: Folds that the chains are split into; it divides their number.
        num_steps: Leapfrog steps of a draw.

    Raises:
        ValueError: An option is out of its range.

    Cost:
        `num_steps` gradients of all chains a draw.

    References:
        Hoffman and Sountsov: Tuning-free generalized Hamiltonian Monte Carlo. AISTATS 2022.
        https://proceedings.mlr.press/v151/hoffman22a.html

        Cabezas, Corenflos, Lao, Louf: BlackJAX. 2024. https://arxiv.org/abs/2402.10797

    Example:
        >>> MEADS(num_folds=8).num_steps
        4
    """

    num_folds: int = 4
    num_steps: int = 4

    def __post_init__(self) -> None:
        check_positive(num_folds=self.num_folds, num_steps=self.num_steps)

    def check(self, num_chains: int) -> None:
        """Refuse a number of chains that the folds do not divide."""
        if num_chains % self.num_folds or num_chains < 2 * self.num_folds:
            raise ValueError(
                f"MEADS splits chains into {self.num_folds} folds of 2 or more: "
                f"num_chains={num_chains} does not do. Take {8 * self.num_folds}."
            )

    def warm(
        self, key: Array, z: Float[Array, "chain D"], log_density: LogDensity, num_warmup: int
    ) -> tuple[Any, Any]:
        """Return the state of all chains and the parameters that warm-up learnt."""
        import blackjax

        algorithm: Any = blackjax.meads_adaptation(
            log_density, len(z), num_folds=self.num_folds, adaptation_info_fn=lambda *_: None
        )
        (state, found), _ = algorithm.run(key, z, num_warmup)
        return state, found

    def step(
        self, key: Array, state: Any, log_density: LogDensity, found: Any
    ) -> tuple[Any, Moved]:
        """Return the state after one step of every chain."""
        import blackjax

        step: Any = blackjax.ghmc(log_density, **found).step
        keys = random.split(key, len(state.position))
        state, info = jax.vmap(step)(keys, state)
        return state, Moved(info.acceptance_rate, info.is_divergent, info.energy)


@dataclass(frozen=True)
class MCLMC:
    """Microcanonical Langevin: isokinetic steps, none of them rejected, so the draws are biased.

    Step size and the length over which the momentum is forgotten are tuned by BlackJAX until the
    energy's variance is small; the medians over all chains are used. `diagnose()` says that the
    draws are biased.

    Args:
        num_steps: Steps of the integrator for a draw.
        energy_variance: Variance of the energy, for each dimension, that the step size is tuned to:
            the smaller, the smaller the bias.

    Raises:
        ValueError: An option is out of its range.

    Cost:
        Two gradients of all chains a step.

    References:
        Robnik, De Luca, Silverstein, Seljak: Microcanonical Hamiltonian Monte Carlo. JMLR 24, 2023.
        https://arxiv.org/abs/2212.08549

        Cabezas, Corenflos, Lao, Louf: BlackJAX. 2024. https://arxiv.org/abs/2402.10797

    Example:
        >>> MCLMC(num_steps=8).energy_variance
        0.0005
    """

    num_steps: int = 8
    energy_variance: float = 5e-4

    def __post_init__(self) -> None:
        check_positive(num_steps=self.num_steps, energy_variance=self.energy_variance)

    def check(self, num_chains: int) -> None:
        """Any number of chains does."""

    def warm(
        self, key: Array, z: Float[Array, "chain D"], log_density: LogDensity, num_warmup: int
    ) -> tuple[Any, Any]:
        """Return the state of all chains and the parameters that warm-up learnt."""
        import blackjax

        kernel = blackjax.mcmc.mclmc.build_kernel()
        steps = int(num_warmup * self.num_steps / _TUNING)

        def tune(z: Array, key: Array) -> tuple[Any, Any]:
            own, rest = random.split(key)
            state = blackjax.mcmc.mclmc.init(z, log_density, own)
            state, found, _ = blackjax.mclmc_find_L_and_step_size(
                kernel, steps, state, rest, log_density, desired_energy_var=self.energy_variance
            )
            return state, (found.L, found.step_size, found.inverse_mass_matrix)

        state, tuned = jax.vmap(tune)(z, random.split(key, len(z)))
        length, size, mass = (jnp.nanmedian(part, axis=0) for part in tuned)
        return state, {"L": length, "step_size": size, "inverse_mass_matrix": mass}

    def step(
        self, key: Array, state: Any, log_density: LogDensity, found: Any
    ) -> tuple[Any, Moved]:
        """Return the state after one step of every chain."""
        import blackjax

        step: Any = blackjax.mclmc(log_density, **found).step
        keys = random.split(key, len(state.position))
        state, info = jax.vmap(step)(keys, state)
        wrong = ~jnp.isfinite(info.energy_change)
        return state, Moved(jnp.ones_like(info.energy_change), wrong, info.energy_change)
