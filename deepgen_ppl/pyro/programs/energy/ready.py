"""What every ready energy can do: compare, normalise once log Z is known, stand in a program."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deepgen_ppl import energies, normalising
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.flow_checks import whole
from deepgen_ppl.pyro.infer import annealed


class Energy(nn.Module):
    r"""A density known up to its normaliser Z, over values of a shape.

    \[ p(x) = p^*(x) / Z, \qquad \log p^*(x) = -E(x) \]

    Everything that compares values works at once; `log_prob` needs log Z. Called with nothing it
    gives Pyro's own `Distribution`. A kind of energy says what `event_shape`, `base` and
    `unnormalised_log_prob` are.
    """

    log_z: Evidence | None
    counts_visible: ClassVar[bool] = True  # whether chains count by their visible values alone

    @property
    @abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value."""

    @abstractmethod
    def base(self) -> Any:
        """Return the distribution that values have in `model` before the energy counts."""

    @abstractmethod
    def unnormalised_log_prob(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch"]:
        """Return minus the energy, the log density but for log Z.

        Args:
            x: values.
        """

    def log_prob(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch"]:
        """Return the log density.

        Args:
            x: values.

        Raises:
            ValueError: log Z is not known; see `with_log_z`.
        """
        found = normalising.need_log_z(type(self).__name__, self.log_z)
        return self.unnormalised_log_prob(x) - found.log_evidence

    def training_log_prob(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch"]:
        """Return the unnormalised log density of data as training takes it, perhaps less exactly.

        Args:
            x: values, of the base's support.
        """
        return self.unnormalised_log_prob(x)

    def chain_log_prob(self, state: Any) -> Float[Tensor, " chain"]:
        """Return the log density by which chains count: minus the energy of their visible values.

        The mean of its gradient over the model's law is the gradient of log Z. No gradient goes
        through the state.

        Args:
            state: state of the chains.
        """
        chains: Any = self
        return self.unnormalised_log_prob(chains.visible(state).detach())

    def to_path(self, state: Any) -> Any:
        """Return the state of chains on a path from theirs, here the same."""
        return state

    def from_path(self, state: Any) -> Any:
        """Return the state of chains from theirs on a path, here the same."""
        return state

    def log_prob_limits(
        self, x: Float[Tensor, "*batch *event"]
    ) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
        """Return one-sided 95% limits of the log density, below and above, as log Z has them.

        Args:
            x: values.

        Raises:
            ValueError: log Z is not known; see `with_log_z`.
        """
        found = normalising.need_log_z(type(self).__name__, self.log_z)
        return normalising.limits(as_numpy(self.unnormalised_log_prob(x)), found)

    def with_log_z(self, log_z: Evidence | float) -> Self:
        """Return a copy that knows its log Z, with its standard error and limits.

        It is the log Z of the parameters as they are: whoever changes them has to find it anew.

        Args:
            log_z: what `dg.log_z` returns, or a number.

        Raises:
            TypeError: it is neither. ValueError: it is not finite.
        """
        return replaced(self, log_z=normalising.as_log_z(log_z))

    def without_log_z(self) -> Self:
        """Return a copy whose log Z is not known, as after training."""
        return replaced(self, log_z=None)

    def log_ratio(
        self, x: Float[Tensor, "*batch *event"], y: Float[Tensor, "*batch *event"]
    ) -> Float[Tensor, "*batch"]:
        r"""Return \(\log p(x) - \log p(y)\), which needs no log Z.

        Args:
            x: values.
            y: other values.
        """
        return self.unnormalised_log_prob(x) - self.unnormalised_log_prob(y)

    def tempered(self, power: float) -> Energy:
        r"""Return the energy whose density is \(p^*(x)^\beta\), a product of this one expert.

        Args:
            power: beta, the inverse temperature; negative values turn the energy round.
        """
        from deepgen_ppl.pyro.programs.energy.product import ProductOfExperts

        return ProductOfExperts([self], powers=[energies.check_number("power", power)])

    def __neg__(self) -> Energy:
        """Return the energy turned round."""
        return self.tempered(-1.0)

    def rank(self, x: Float[Tensor, "N ..."]) -> Int[np.ndarray, " N"]:
        """Return the rows in the order of their density, the least probable (anomalies) first.

        Args:
            x: rows.
        """
        return energies.ranked(as_numpy(self.unnormalised_log_prob(x)))

    def forward(self) -> EnergyDistribution:
        """Return the native distribution."""
        return EnergyDistribution(self)

    @property
    def model(self) -> Callable[..., None]:
        """The native program of rows: site "x" of the base in plate "data", a factor beside it."""

        def model(x: Tensor | None = None) -> None:
            run(pyro.module("energy", self), x)

        return model

    @property
    def program(self) -> Callable[..., None]:
        """The same program, its parameters held as they are."""
        held = replaced(self).requires_grad_(False)

        def program(x: Tensor | None = None) -> None:
            run(held, x)

        return program


class EnergyDistribution(dist.TorchDistribution):
    """A ready energy as Pyro's own distribution; it has a density once log Z is known."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, energy: Any, validate_args: bool | None = None) -> None:
        self.energy = energy
        super().__init__(
            torch.Size(), torch.Size(tuple(energy.event_shape)), validate_args=validate_args
        )

    @property
    def support(self) -> Any:
        """Constraint of the values."""
        return self.energy.base().support

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Refuse: an energy is not drawn from forwards."""
        raise NotImplementedError(energies.refuse_draw(type(self.energy).__name__))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of values."""
        return self.energy.log_prob(value)


def run(energy: Any, x: Tensor | None, more: Callable[..., None] | None = None) -> None:
    """Run the program of an energy: of rows, or of one value that is latent.

    Args:
        energy: the energy.
        x: rows, None for a latent value.
        more: further sites in the plate of the rows, a function of their values.
    """
    base = energy.base()
    if x is None:
        value: Any = pyro.sample("x", base)
        pyro.factor("factor", energy.unnormalised_log_prob(value) - base.log_prob(value))
        return
    energies.check_event(tuple(x.shape), energy.event_shape, type(energy).__name__)
    with pyro.plate("data", len(x)):
        value = pyro.sample("x", base, obs=x)
        pyro.factor("factor", energy.unnormalised_log_prob(value) - base.log_prob(value))
        if more is not None:
            more(value)


def replaced(module: Any, **values: Any) -> Any:
    """Return a copy of a module, its parameters too, with other values of some attributes."""
    found = copy.deepcopy(module)
    for name, value in values.items():
        setattr(found, name, value)
    return found


def as_numpy(value: Any) -> np.ndarray:
    """Return a tensor as an array."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def run_chains(
    energy: Any,
    num_chains: int,
    num_steps: int,
    seed: int,
    num_temperatures: int = 1,
    x: Any = None,
) -> Float[Tensor, "chain ..."]:
    """Return the visible values of an energy's own chains after some sweeps from the base rates."""
    whole("num_chains", num_chains)
    whole("num_steps", num_steps)
    generator = generator_of(energy, seed)
    with torch.no_grad():
        if whole("num_temperatures", num_temperatures) == 1:
            state = energy.init_chains(generator, num_chains)
            return energy.visible(energy.step_chains(generator, state, num_steps))
        path = energy.path(generator, x)
        state = annealed.tempered(path, num_chains, num_steps, num_temperatures, generator)
        return energy.visible(energy.from_path(state))


def generator_of(energy: nn.Module, seed: int) -> torch.Generator:
    """Return a source of random numbers on the device of an energy."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed must be an int, not {seed!r}.")
    device = next((p.device for p in energy.parameters()), torch.get_default_device())
    return torch.Generator(device).manual_seed(int(seed))
