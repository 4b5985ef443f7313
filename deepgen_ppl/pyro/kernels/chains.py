"""The protocol of ready energies, and of the chains that some of them bring along.

A ready energy is a torch module whose methods are pure functions of its parameters, so that one
update is the gradient of `mean unnormalised_log_prob(data) - mean
chain_log_prob(chains)`. It always has

- `unnormalised_log_prob(x)`: minus the energy, with hidden units summed out where that is closed;
  a batch of any shape in front of `event_shape`;
- `event_shape`, the shape of one visible value;
- `model`, its native program: site "x" of the base in plate "data", a factor beside it.

It may bring its own chain, which `dg.contrastive` and `dg.log_z` then run instead of a kernel of
`mcmc`:

- `init_chains(generator, num_chains)`: the state of chains drawn from the base rate;
- `step_chains(generator, state, num_steps)`: the state after some sweeps, that leave the model's
  law as it is;
- `visible(state)`: the visible values of a state, shape (chain, *event);
- `chains_at(generator, x)`: the state of chains whose visible values are these, by which chains
  set out from data;
- `chain_log_prob(state)`: the log density by which a state counts in the negative phase, the mean
  of whose gradient over the model's law is the gradient of log Z: that of the visible values, or
  of more where the hidden units cannot be summed out; `counts_visible` tells which.

A state is a tensor, or a tuple or dict of tensors, whose leading axis is the chain: it is
gathered, scattered and saved along that axis. Gradients never go through a chain.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Chains", "ReadyEnergy"]


@runtime_checkable
class ReadyEnergy(Protocol):
    """An unnormalised density of visible values."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one visible value."""
        ...

    @property
    def model(self) -> Any:
        """The native program of rows."""
        ...

    def unnormalised_log_prob(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch"]:
        """Return minus the energy."""
        ...


@runtime_checkable
class Chains(Protocol):
    """The chain that a ready energy brings along."""

    counts_visible: ClassVar[bool]

    def init_chains(self, generator: torch.Generator | None, num_chains: int) -> Any:
        """Return the state of chains drawn from the base rate.

        Args:
            generator: source of the random numbers, torch's own when None.
            num_chains: number of chains.
        """
        ...

    def chains_at(self, generator: torch.Generator | None, x: Float[Tensor, "chains ..."]) -> Any:
        """Return the state of chains with these visible values.

        Args:
            generator: source of the random numbers, torch's own when None, for what is not visible.
            x: a visible value for each chain.
        """
        ...

    def step_chains(self, generator: torch.Generator | None, state: Any, num_steps: int) -> Any:
        """Return the state after some sweeps.

        Args:
            generator: source of the random numbers, torch's own when None.
            state: state of all chains.
            num_steps: number of sweeps.
        """
        ...

    def visible(self, state: Any) -> Float[Tensor, "chains ..."]:
        """Return the visible values of a state."""
        ...

    def chain_log_prob(self, state: Any) -> Float[Tensor, " chains"]:
        """Return the log density by which a state counts."""
        ...
