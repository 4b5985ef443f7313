"""Chains of the negative phase: how each kind of unnormalised density is moved and weighed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import biject_to
from torch.utils._pytree import tree_leaves

from deepgen_ppl.blocks import find_blocks
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.discrete import Discrete, read_coordinates
from deepgen_ppl.pyro.kernels import gibbs, hmc
from deepgen_ppl.pyro.kernels import gibbs_with_gradients as gradients_
from deepgen_ppl.pyro.kernels.adaptation import Controls
from deepgen_ppl.pyro.kernels.estimates import van_der_corput
from deepgen_ppl.pyro.kernels.gibbs_with_gradients import GibbsWithGradients
from deepgen_ppl.pyro.parameters import Param, forked_rng, installed, private_store
from deepgen_ppl.pyro.pointwise import over
from deepgen_ppl.pyro.structure import Program
from deepgen_ppl.pyro.unconstrained import Potential

_RATE = 0.1
_MOST_CHANGES = 64
_TRAJECTORY = 1.5
_FIRST_STEP = 0.1

Values = Mapping[str, Tensor]
Data = Sequence[Any]


class Moved(NamedTuple):
    """What a move of all chains leaves.

    Attributes:
        state: state of the chains.
        log_step: logarithm of the step size to go on with.
        acceptance: mean acceptance of each chain.
        discrepancy: how far blocks were from being independent, 0 without blocks.
    """

    state: Any
    log_step: Float[Tensor, ""]
    acceptance: Float[Tensor, " chain"]
    discrepancy: Float[Tensor, ""]


class Sampler(Protocol):
    """Chains on the visible values of an unnormalised density, and its hidden ones.

    A state is a tensor or a tuple or dict of them, whose leading axis is the chain. `params` are
    constrained parameters by name; `rows` are the data rows that chains stand for, whose covariates
    they see. Random numbers are torch's own.
    """

    def start(self, params: Values, data: Data, rows: Tensor, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base."""
        ...

    def move(
        self, params: Values, data: Data, rows: Tensor, state: Any, log_step: Tensor, num_steps: int
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

    def start(self, params: Values, data: Data, rows: Tensor, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base rate."""
        with installed(self.params, params), torch.no_grad():
            if not at_data:
                return self.energy.init_chains(None, len(rows))
            return self.energy.chains_at(None, data_.take(data, rows)[0])

    def move(
        self, params: Values, data: Data, rows: Tensor, state: Any, log_step: Tensor, num_steps: int
    ) -> Moved:
        """Run the energy's own sweeps."""
        with installed(self.params, params), torch.no_grad():
            state = self.energy.step_chains(None, state, num_steps)
        like = log_step.new_zeros(())
        return Moved(state, log_step, like.new_ones(len(rows)), like)

    def log_prob(
        self, params: Values, data: Data, rows: Tensor, state: Any
    ) -> Float[Tensor, " chain"]:
        """Return the unnormalised log density of each chain, hidden units summed out."""
        with installed(self.params, params):
            return self.energy.unnormalised_log_prob(self.energy.visible(state).detach())

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

    def start(self, params: Values, data: Data, rows: Tensor, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base."""
        with installed(self.params, params), torch.no_grad():
            base = self.energy.base()
            x = data_.take(data, rows)[0] if at_data else base.sample((len(rows),))
            return biject_to(base.support).inv(x)

    def move(
        self, params: Values, data: Data, rows: Tensor, state: Any, log_step: Tensor, num_steps: int
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
            z, log_step, rate = climb(self.kernel, flat, both, log_step, num_steps)
        return Moved(z.reshape(state.shape), log_step, rate, log_step.new_zeros(()))

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


class ProgramChains:
    """Chains on latent sites of a program at one row of its data, discrete ones among them.

    Args:
        program: the program, its visible sites free, read at one row (or at all data, where it has
            no data plate).
        visible: its visible sites, whose data chains may set out from; the others are hidden.
        source: the program as the user wrote it, that knows the data's values.
        params: constrained parameters in general position, at which it is found what depends on
            what.
        data: the data at all rows.
        kernels: discrete and continuous kernel; either may be missing.
        by_rows: whether a chain is one row's.
        given_data: chains on the hidden sites alone, by which these are drawn where chains set out
            from data.
    """

    def __init__(
        self,
        program: Program,
        visible: tuple[str, ...],
        source: Program,
        params: Values,
        data: Data,
        kernels: tuple[Any, Any],
        by_rows: bool,
        given_data: ProgramChains | None = None,
    ) -> None:
        self.program, self.visible, self.source = program, visible, source
        self.by_rows, (self.discrete, self.continuous) = by_rows, kernels
        self.given_data = given_data
        one = self._rows_of(data, torch.zeros(1, dtype=torch.int64))
        own = {n: v.detach().requires_grad_(v.requires_grad) for n, v in params.items()}
        names = [n for n, s in program.latents.items() if not s.is_discrete]
        self.coordinates: Any = None
        if len(names) < len(program.latents):
            self.coordinates = read_coordinates(program, own, one, "gibbs")
            self.view: Any = Discrete(program, self.coordinates, own, one)
            self.potential = self.view.potential
            places = self.coordinates.places.items()
            self.supports = {n: torch.as_tensor(p.support) for n, p in places}
        else:
            self.view = self.potential = Potential(program, own, one)
        self.names = names
        self.shapes = {n: _free_shape(self.potential.transforms[n], program.latents[n].shape)
                       for n in names}  # fmt: skip
        self.size = sum(math.prod(shape) for shape in self.shapes.values())
        if self.coordinates is not None:
            with private_store(), handlers.validation(False), forked_rng(0), torch.no_grad():
                self._prepare(own, data)

    # ------------------------------------------------------------------------------ protocol

    def start(self, params: Values, data: Data, rows: Tensor, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base."""
        hidden: dict[str, Tensor] = {}
        if at_data and self.given_data is not None:
            begun = self.given_data.start(params, data, rows, False)
            size = torch.log(torch.tensor(_FIRST_STEP))
            found = self.given_data.move(params, data, rows, begun, size, 1)
            hidden = self.given_data.values(params, data, rows, found.state)
        batch = self._rows_of(data, rows)

        def one(point: tuple[dict[str, Tensor], list[Tensor]]) -> tuple[Tensor, Tensor]:
            hidden, row = point
            here = self._row(data, row)
            given = {**self.data_of(params, here), **hidden} if at_data else {}
            seen = self._run(self.program, params, here, given)
            free = [self.potential.transforms[n].inv(seen[n]).reshape(-1) for n in self.names]
            z = torch.cat(free) if free else torch.zeros(0)
            return self._numbers(seen), z

        with torch.no_grad(), private_store():
            if self.by_rows:
                return over(one, (hidden, batch))
            several = {**hidden, "": rows}

            def each(point: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
                return one(({n: v for n, v in point.items() if n}, []))

            return over(each, several)

    def move(
        self, params: Values, data: Data, rows: Tensor, state: Any, log_step: Tensor, num_steps: int
    ) -> Moved:
        """Move discrete and continuous sites of all chains in turn."""
        params = {n: v.detach().requires_grad_(v.requires_grad) for n, v in params.items()}
        batch = self._rows_of(data, rows)
        with private_store():
            if self.coordinates is None:
                both = self._both(params, data, batch, state[0])
                z, log_step, rate = climb(self.continuous, state[1], both, log_step, num_steps)
                return Moved((state[0], z), log_step, rate, log_step.new_zeros(()))
            zero = log_step.new_zeros(())
            now = Moved(state, log_step, log_step.new_zeros(len(rows)), zero)
            for number in range(num_steps):
                now = self._mixed((params, data, batch), now, number)
        return now._replace(acceptance=now.acceptance / num_steps)

    def log_prob(
        self, params: Values, data: Data, rows: Tensor, state: Any
    ) -> Float[Tensor, " chain"]:
        """Return the unnormalised log density of each chain, where it lives."""
        with private_store():
            return -self._energies(params, data, self._rows_of(data, rows), *state)

    @property
    def is_continuous(self) -> bool:
        """Whether there are continuous sites."""
        return bool(self.size)

    def place(self, state: Any) -> Float[Tensor, "chain D"]:
        """Return the positions of the continuous sites."""
        return state[1]

    def values(self, params: Values, data: Data, rows: Tensor, state: Any) -> dict[str, Tensor]:
        """Return the value of each site."""

        def one(point: tuple[Tensor, Tensor, list[Tensor]]) -> dict[str, Tensor]:
            x, z, row = point
            view = self._view(params, self._row(data, row))
            if self.coordinates is None:
                return view.constrain(self._split(z))
            return view.constrain(x, self._split(z))

        with torch.no_grad(), private_store():
            return over(one, (*state, self._rows_of(data, rows)))

    def data_of(self, params: Values, row: Data) -> dict[str, Tensor]:
        """Return the data of the visible sites at a row."""
        if not self.visible:
            return {}
        seen = self._run(self.source, params, row, {})
        return {name: seen[name] for name in self.visible}

    # ------------------------------------------------------------------------------- helpers

    def _rows_of(self, data: Data, rows: Tensor) -> Any:
        """Return the arrays of some rows; nothing where a chain is all of the data's."""
        if not self.by_rows:
            return list(data)
        return [x for x in data_.take(data, rows) if data_.has_rows(x)]

    def _row(self, data: Data, row: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return the data arguments at one row, its arrays given without a leading axis."""
        if not self.by_rows:
            return tuple(data)
        arrays = iter(row)
        return tuple(next(arrays)[None] if data_.has_rows(x) else x for x in data)

    def _run(
        self, program: Program, params: Values, data: Data, given: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        with installed(program.params.values(), params) as answers:
            run = program_.call(program, data, handlers.feasible(), answers, handlers.replay(given))
        return {name: msg["value"] for name, msg in run.sites.items()}

    def _view(self, params: Values, row: Data) -> Any:
        potential = copy.copy(self.potential)
        potential.params, potential.data = params, tuple(row)
        if self.coordinates is None:
            return potential
        view = copy.copy(self.view)
        view.params, view.data, view.potential = params, tuple(row), potential
        return view

    def _split(self, z: Tensor) -> dict[str, Tensor]:
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = z.split(sizes) if sizes else ()
        named = zip(self.shapes.items(), parts, strict=True)
        return {name: part.reshape(shape) for (name, shape), part in named}

    def _numbers(self, values: Mapping[str, Tensor]) -> Int[Tensor, " D"]:
        if self.coordinates is None:
            return torch.zeros(0, dtype=torch.int64)
        parts = []
        for name, place in self.coordinates.places.items():
            support = self.supports[name]
            value = values[name].reshape(place.size, 1, *support.shape[2:])
            same = (value == support).reshape(place.size, support.shape[1], -1).all(-1)
            parts.append(same.to(torch.int64).argmax(-1))
        return torch.cat(parts)

    def _energies(self, params: Values, data: Data, batch: Any, x: Tensor, z: Tensor) -> Tensor:
        def one(point: tuple[Tensor, Tensor, list[Tensor]]) -> Tensor:
            x, z, row = point
            view = self._view(params, self._row(data, row))
            if self.coordinates is None:
                return view.energy(self._split(z))
            return view.energy(self._split(z), x)

        return over(one, (x, z, batch if self.by_rows else []))

    def _both(
        self, params: Values, data: Data, batch: Any, x: Tensor
    ) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        def both(z: Tensor) -> tuple[Tensor, Tensor]:
            z = z.detach().requires_grad_(True)
            with torch.enable_grad():
                energy = self._energies(params, data, batch, x, z)
                (slope,) = torch.autograd.grad(energy.sum(), z)
            return energy.detach(), slope

        return both

    def _terms(self, args: tuple[Any, ...], x: Tensor, z: Tensor) -> Float[Tensor, "*batch T"]:
        """Return the terms at coordinates with further leading axes, for each chain's z and row."""
        params, data, batch = args

        def one(point: tuple[Tensor, Tensor, list[Tensor]]) -> Tensor:
            x, z, row = point
            view = self._view(params, self._row(data, row))
            return view.terms(x, view.hold(self._split(z)))

        lead = x.shape[:-2]
        times = math.prod(lead)
        own = [_tiled(part, times) for part in batch] if self.by_rows else []
        flat = x.reshape(-1, x.shape[-1])
        with torch.no_grad():
            found = over(one, (flat, _tiled(z, times), own))
        return found.reshape(*lead, len(z), -1)

    def _mixed(self, args: tuple[Any, ...], now: Moved, number: int) -> Moved:
        """Move the discrete sites once, then the continuous ones."""
        x, z = now.state
        generator: Any = torch.default_generator

        def terms(x: Tensor) -> Tensor:
            return self._terms(args, x, z)

        if isinstance(self.discrete, GibbsWithGradients):
            x, rate, worst = self._changed(args, x, z)
        else:
            options: dict = {"num_values": self.coordinates.num_values, "scan": self.discrete.scan}
            begun = gibbs.init(x, terms)
            state, info = gibbs.step(
                generator, begun, terms, self.table, check=number == 0, **options
            )
            x, rate, worst = state.position, info.acceptance, info.discrepancy.max()
        log_step = now.log_step
        if self.size:
            both = self._both(args[0], args[1], args[2], x)
            z, log_step, rate = climb(self.continuous, z, both, log_step, 1)
        worst = torch.maximum(now.discrepancy, worst)
        return Moved((x, z), log_step, now.acceptance + rate, worst)

    def _changed(
        self, args: tuple[Any, ...], x: Tensor, z: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Change single coordinates where a gradient says that they are likely to change."""
        params, data, batch = args

        def one(point: tuple[Tensor, Tensor, list[Tensor]]) -> tuple[Tensor, Tensor]:
            x, z, row = point
            return self._view(params, self._row(data, row)).gains(x, self._split(z))

        def gains(x: Tensor) -> tuple[Tensor, Tensor]:
            return over(one, (x, z, batch if self.by_rows else []))

        if self.discrete.differences == "exact":

            def gains(x: Tensor) -> tuple[Tensor, Tensor]:
                terms: Callable = lambda x: self._terms(args, x, z)  # noqa: E731
                state = gibbs.init(x, terms)
                options = {"num_values": self.coordinates.num_values}
                told = gibbs.conditionals(state, terms, self.table, **options)
                return state.terms.sum(-1), told

        count = self.discrete.num_discrete_steps or min(self.coordinates.size, _MOST_CHANGES)
        generator: Any = torch.default_generator
        begun = gradients_.init(x, gains)
        state, info = gradients_.step(
            generator, begun, gains, self.table.cardinality, num_steps=count
        )
        return state.position, info.acceptance, info.acceptance.new_zeros(())

    def _prepare(self, params: Values, data: Data) -> None:
        """Find which coordinates may move at once."""
        rows, width = torch.zeros(8, dtype=torch.int64), 64
        first = self.start(params, data, rows, False)
        args = (params, data, self._rows_of(data, torch.zeros(width, dtype=torch.int64)))

        def evaluate(points: Int[np.ndarray, "n D"], number: int) -> np.ndarray:
            found = []
            z = first[1][number % 8 : number % 8 + 1].expand(width, -1)
            for begin in range(0, len(points), width):
                take = np.minimum(np.arange(begin, begin + width), len(points) - 1)
                x = torch.as_tensor(points[take], dtype=torch.int64)
                found.append(self._terms(args, x, z).numpy())
            return np.concatenate(found)[: len(points)]

        num_terms = evaluate(first[0][:1].numpy(), 0).shape[1]
        cardinality, groups = self.coordinates.cardinality, self.coordinates.groups
        blocks = find_blocks(evaluate, cardinality, groups)
        self.table = gibbs.table(blocks, cardinality, num_terms)


def climb(
    kernel: Any,
    z: Float[Tensor, "chain D"],
    potential: Callable[[Tensor], tuple[Tensor, Tensor]],
    log_step: Float[Tensor, ""],
    num_steps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Move continuous chains by a kernel, its step size following the acceptance.

    Args:
        kernel: options of `MALA`, `Langevin`, `ChEES` or `RWM`.
        z: positions.
        potential: potential energy and gradient, over the batch.
        log_step: logarithm of the step size.
        num_steps: number of steps.

    Returns:
        Positions, the logarithm of the step size to go on with, and the acceptance of each chain.
    """
    root: Any = None
    move, target = kernel.bind(), kernel.target_accept_prob
    lengths = getattr(kernel, "trajectory_lengths", (_TRAJECTORY,))
    length = lengths[len(lengths) // 2]
    generator: Any = torch.default_generator
    state, total = hmc.init(z, potential), z.new_zeros(len(z))
    for number in range(num_steps):
        steer = Controls(float(log_step.exp()), length, van_der_corput(number), root)
        state, info = move(generator, state, potential, steer)
        rate = info.acceptance.nan_to_num()
        log_step = log_step + _RATE * (rate.mean() - target)
        total = total + rate
    return state.position.detach(), log_step.detach(), total / num_steps


def first_step(kernel: Any) -> float:
    """Return the logarithm of the step size that a kernel begins with."""
    return math.log(getattr(kernel, "step_size", _FIRST_STEP))


def _free_shape(transform: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(transform.inverse_shape(shape))


def _tiled(part: Tensor, times: int) -> Tensor:
    return part.repeat(times, *([1] * (part.dim() - 1)))


def _leaves(state: Any) -> list[Tensor]:
    return tree_leaves(state)
