"""Chains of the negative phase: how each kind of unnormalised density is moved and weighed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import biject_to
from torch.utils._pytree import tree_leaves

from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro.kernels import hmc
from deepgen_ppl.pyro.kernels.adaptation import Controls
from deepgen_ppl.pyro.kernels.estimates import van_der_corput
from deepgen_ppl.pyro.parameters import Param, installed

_RATE = 0.1
_TRAJECTORY = 1.5
_FIRST_STEP = 0.1

Values = Mapping[str, Tensor]
Data = Sequence[Any]


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
    acceptance: Float[Tensor, " chain"]
    discrepancy: Float[Tensor, ""]


class Sampler(Protocol):
    """Chains on the visible values of an unnormalised density, and its hidden ones.

    A state is a tensor or a tuple or dict of them, whose leading axis is the chain. `params` are
    constrained parameters by name; `rows` are the data rows that chains stand for, whose covariates
    they see. Random numbers are torch's own.
    """

    @property
    def tuning(self) -> Any:
        """What the first moves are steered by, as the logarithm of their step size."""
        ...

    def start(self, params: Values, data: Data, rows: Tensor, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base."""
        ...

    def move(
        self, params: Values, data: Data, rows: Tensor, state: Any, tuning: Any, num_steps: int
    ) -> Moved:
        """Move all chains by some steps."""
        ...

    def log_prob(
        self, params: Values, data: Data, rows: Tensor, state: Any
    ) -> Float[Tensor, " chain"]:
        """Return the unnormalised log density of each chain."""
        ...

    @property
    def is_continuous(self) -> bool:
        """Whether chains have continuous values, that may run away."""
        ...

    def place(self, state: Any) -> Float[Tensor, "chain D"]:
        """Return the continuous values by which chains are seen to run away."""
        ...

    def values(self, params: Values, data: Data, rows: Tensor, state: Any) -> dict[str, Tensor]:
        """Return the value of each site."""
        ...


class OwnChains:
    """The chain that a ready energy brings along.

    Args:
        energy: the ready energy.
        params: its parameters, as its program was read.
        site: its visible site.
    """

    is_continuous = False

    def __init__(self, energy: Any, params: Iterable[Param], site: str = "x") -> None:
        self.energy, self.params, self.site = energy, tuple(params), site
        self.counts_visible = energy.counts_visible
        self.tuning = first_step(None)

    def start(self, params: Values, data: Data, rows: Tensor, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base rate."""
        with installed(self.params, params), torch.no_grad():
            if not at_data:
                return self.energy.init_chains(None, len(rows))
            return self.energy.chains_at(None, data_.take(data, rows)[0])

    def move(
        self, params: Values, data: Data, rows: Tensor, state: Any, tuning: Any, num_steps: int
    ) -> Moved:
        """Run the energy's own sweeps."""
        with installed(self.params, params), torch.no_grad():
            state = self.energy.step_chains(None, state, num_steps)
        like = tuning.new_zeros(())
        return Moved(state, tuning, like.new_ones(len(rows)), like)

    def log_prob(
        self, params: Values, data: Data, rows: Tensor, state: Any
    ) -> Float[Tensor, " chain"]:
        """Return the log density by which each chain counts, as the energy has it."""
        with installed(self.params, params):
            return self.energy.chain_log_prob(state)

    def data_log_prob(self, params: Values, data: Data, rows: Tensor | None) -> Float[Tensor, " B"]:
        """Return the unnormalised log density of data rows, of all without a number of theirs."""
        call = data if rows is None else data_.take(data, rows)
        with installed(self.params, params):
            return self.energy.training_log_prob(call[0])

    def place(self, state: Any) -> Float[Tensor, "chain D"]:
        """Return nothing: these chains live where their own moves keep them."""
        return torch.zeros(len(_leaves(state)[0]), 0)

    def values(self, params: Values, data: Data, rows: Tensor, state: Any) -> dict[str, Tensor]:
        """Return the visible values."""
        with installed(self.params, params), torch.no_grad():
            return {self.site: self.energy.visible(state)}


class GradientChains:
    """Chains of a continuous ready energy, moved by a kernel that follows its gradient.

    They live where `biject_to` of the base's support maps to.

    Args:
        energy: the ready energy.
        params: its parameters, as its program was read.
        kernel: options of the kernel, as `MALA()`.
        site: its visible site.
    """

    is_continuous = True

    def __init__(self, energy: Any, params: Iterable[Param], kernel: Any, site: str = "x") -> None:
        self.energy, self.params = energy, tuple(params)
        self.kernel, self.site = kernel, site
        self.tuning = first_step(kernel)

    def start(self, params: Values, data: Data, rows: Tensor, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base."""
        with installed(self.params, params), torch.no_grad():
            base = self.energy.base()
            x = data_.take(data, rows)[0] if at_data else base.sample((len(rows),))
            return biject_to(base.support).inv(x)

    def move(
        self, params: Values, data: Data, rows: Tensor, state: Any, tuning: Any, num_steps: int
    ) -> Moved:
        """Move all chains by some steps."""
        shape = state.shape[1:]

        def both(z: Tensor) -> tuple[Tensor, Tensor]:
            z = z.detach().requires_grad_(True)
            with torch.enable_grad():
                energy = -self._log_prob(z.reshape(-1, *shape))
                (slope,) = torch.autograd.grad(energy.sum(), z)
            return energy.detach(), slope

        with installed(self.params, params):
            flat = state.reshape(len(state), -1)
            z, tuning, rate = climb(self.kernel, flat, both, tuning, num_steps)
        return Moved(z.reshape(state.shape), tuning, rate, tuning.new_zeros(()))

    def log_prob(
        self, params: Values, data: Data, rows: Tensor, state: Any
    ) -> Float[Tensor, " chain"]:
        """Return the unnormalised log density of each chain, where it lives."""
        with installed(self.params, params):
            return self._log_prob(state)

    def place(self, state: Any) -> Float[Tensor, "chain D"]:
        """Return the positions."""
        return state.reshape(len(state), -1)

    def values(self, params: Values, data: Data, rows: Tensor, state: Any) -> dict[str, Tensor]:
        """Return the visible values."""
        with installed(self.params, params), torch.no_grad():
            return {self.site: biject_to(self.energy.base().support)(state)}

    def _log_prob(self, z: Tensor) -> Tensor:
        transform = biject_to(self.energy.base().support)
        x = transform(z)
        log_det = transform.log_abs_det_jacobian(z, x)
        return self.energy.unnormalised_log_prob(x) + log_det.reshape(len(z), -1).sum(1)


def climb(
    kernel: Any,
    z: Float[Tensor, "chain D"],
    potential: Callable[[Tensor], tuple[Tensor, Tensor]],
    log_step: Float[Tensor, "*kind"],
    num_steps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Move continuous chains by a kernel, its step size following the acceptance.

    Args:
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
    length = lengths[len(lengths) // 2]
    generator: Any = torch.default_generator
    kinds = log_step.shape
    state, total = hmc.init(z, potential), z.new_zeros(len(z))
    for number in range(num_steps):
        size = log_step.exp().repeat(len(z) // len(log_step)) if kinds else float(log_step.exp())
        steer = Controls(size, length, van_der_corput(number), root)
        state, info = move(generator, state, potential, steer)
        rate = info.acceptance.nan_to_num()
        log_step = log_step + _RATE * (rate.reshape(-1, *kinds).mean(0) - target)
        total = total + rate
    return state.position.detach(), log_step.detach(), total / num_steps


def first_step(kernel: Any) -> Float[Tensor, ""]:
    """Return the logarithm of the step size that a kernel begins with."""
    return torch.tensor(math.log(getattr(kernel, "step_size", _FIRST_STEP)))


def _leaves(state: Any) -> list[Tensor]:
    return tree_leaves(state)
