"""The protocol of ready energies, and of the chains that some of them bring along.

A ready energy is an equinox module whose methods are pure functions of its parameters, so that one
compiled update is the gradient of `mean unnormalised_log_prob(data) - mean
chain_log_prob(chains)`. It always has

- `unnormalised_log_prob(x)`: minus the energy, with hidden units summed out where that is closed;
  a batch of any shape in front of `event_shape`;
- `event_shape`, the shape of one visible value;
- `model`, its native program: site "x" of the base in plate "data", a factor beside it.

It may bring its own chain, which `dg.contrastive` and `dg.log_z` then run instead of a kernel of
`mcmc`:

- `init_chains(key, num_chains)`: the state of chains drawn from the base rate;
- `step_chains(key, state, num_steps)`: the state after some sweeps, that leave the model's law as
  it is;
- `visible(state)`: the visible values of a state, shape (chain, *event);
- `chains_at(key, x)`: the state of chains whose visible values are these, by which chains set out
  from data;
- `chain_log_prob(state)`: the log density by which a state counts in the negative phase, the mean
  of whose gradient over the model's law is the gradient of log Z: that of the visible values, or
  of more where the hidden units cannot be summed out; `counts_visible` tells which.

A state is any pytree of arrays whose leading axis is the chain: it is gathered, scattered and
saved along that axis. Gradients never go through a chain.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Array, Float

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

    def unnormalised_log_prob(self, x: Float[Array, "*batch *event"]) -> Float[Array, "*batch"]:
        """Return minus the energy."""
        ...


@runtime_checkable
class Chains(Protocol):
    """The chain that a ready energy brings along."""

    counts_visible: ClassVar[bool]

    def init_chains(self, key: Array, num_chains: int) -> Any:
        """Return the state of chains drawn from the base rate.

        Args:
            key: random key.
            num_chains: number of chains.
        """
        ...

    def chains_at(self, key: Array, x: Float[Array, "chains ..."]) -> Any:
        """Return the state of chains with these visible values.

        Args:
            key: random key, for what is not visible.
            x: a visible value for each chain.
        """
        ...

    def step_chains(self, key: Array, state: Any, num_steps: int) -> Any:
        """Return the state after some sweeps.

        Args:
            key: random key.
            state: state of all chains.
            num_steps: number of sweeps.
        """
        ...

    def visible(self, state: Any) -> Float[Array, "chains ..."]:
        """Return the visible values of a state."""
        ...

    def chain_log_prob(self, state: Any) -> Float[Array, " chains"]:
        """Return the log density by which a state counts."""
        ...
